"""Models on disk: the config and the weights of a run directory.

    RUN/config.yaml                  preset, model (the `ModelConfig`), train (everything else that decided the run),
                                     actions (what -1 and 1 mean in the units of the training data, if that says so)
    RUN/manifest.json                what was trained on, by content: see `aime.data.manifest`
    RUN/checkpoint/ema.safetensors   averaged weights and buffers, for evaluation and prediction

The weights are safetensors, the config is YAML without tags: reading them executes no code. The checkpoint's files are
compared with its SHA256SUMS, where it has them, whenever one of them is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from aime.data.action_scale import ActionScale
from aime.data.manifest import MANIFEST, Manifest, find_manifest
from aime.data.shards import Attribute
from aime.errors import AimeError
from aime.primitives.checksums import read_checked
from aime.primitives.config_io import from_plain, read_yaml
from aime.primitives.tensor_files import build_for, fill, read_tensors, require_finite
from aime.world_model.bundled import locate
from aime.world_model.config import ModelConfig
from aime.world_model.core import WorldModel

CONFIG = "config.yaml"
AVERAGED_WEIGHTS = "ema.safetensors"

T = TypeVar("T")
M = TypeVar("M", bound=WorldModel)

RENAMED: Mapping[str, str] = {
    "dynamics.lstm.": "dynamics.recurrence.lstm.",
    "dynamics.initial_belief": "dynamics.recurrence.initial_belief",
    "dynamics.initial_cell": "dynamics.recurrence.initial_cell",
    **{
        name: f"dynamics.{name}"
        for name in ("prior.", "expect_context.", "imply_context.", "control.", "initial_latent")
    },
    "second_observation.head.": "dynamics.state_head.",
    "second_observation.scale.": "dynamics.state_head.scale.",
    "second_observation.reader.": "state_reader.",
}
"""How the names of tensors began in weights up to version 0.1, and how they begin now."""

_KINDS: dict[type, str] = {str: "a string", int: "an integer", dict: "a mapping of fields"}


@dataclass(frozen=True)
class RunInfo:
    """What a run directory says about itself."""

    path: Path
    preset: str
    model: ModelConfig
    train: Mapping[str, Any]
    """The run's settings, plain: data, seed, held_out, batch, ... by name."""
    action_scale: ActionScale | None = None
    """What actions of -1 and 1 are in the units of the training data; None where that does not say."""
    names: Mapping[str, Attribute] = field(default_factory=dict)
    """Of actions and states, as the shards that it learned from note them (`aime.data.state_names`)."""

    @cached_property
    def manifest(self) -> Manifest | None:
        """What the run was trained on, by content; None of a run of before there were manifests.

        Raises:
            AimeError: if the file is damaged, or lacks what the checkpoint's says that was learned from.
        """
        # before the run's: a trainer writes that first, and it has all that the checkpoint's has
        saved = read_checkpoint(self.path, find_manifest, [MANIFEST]) if has_checkpoint(self.path) else None
        found = find_manifest(self.path)
        missing = frozenset() if found is None or saved is None else saved.learned - found.learned
        if missing:
            raise AimeError(
                f"{self.path / MANIFEST}: lacks {len(missing)} episodes that the checkpoint was trained on, expected "
                f"all; it was edited or is another run's: copy {checkpoint_directory(self.path) / MANIFEST} there"
            )
        return saved if found is None else found

    @property
    def data(self) -> str:
        """The data source that the run was last trained on: absolute paths or bundled:NAME."""
        return str(self.train["data"])

    @property
    def seed(self) -> int:
        """The seed that the run was trained with."""
        return int(self.train["seed"])


def read_run(run: str | Path) -> RunInfo:
    """What `run`, a directory or bundled:NAME, says about itself; reads no weights.

    Raises:
        AimeError: if there is no such directory, it is no run, or its config does not fit this version of aime.
    """
    run = locate(run)
    if not run.is_dir():
        found = "a file" if run.exists() else "nothing"
        raise AimeError(f"{run}: found {found} there, expected the run directory that `aime train` writes")
    path = run / CONFIG
    if not path.is_file():
        raise AimeError(f"{run}: not a run: it has no {CONFIG}; expected a directory that `aime train` wrote")
    content = read_yaml(path)
    preset = _require(content, "preset", str, path)
    train = _require(content, "train", dict, path)
    _require(train, "data", str, path, "train.")
    _require(train, "seed", int, path, "train.")
    model = from_plain(ModelConfig, _require(content, "model", dict, path), str(path), "model")
    names = content.get("names")
    names = {str(name): str(noted) for name, noted in names.items()} if isinstance(names, dict) else {}
    return RunInfo(run, preset, model, train, _action_scale(content, model, path), names)


def _action_scale(content: Mapping[str, Any], model: ModelConfig, path: Path) -> ActionScale | None:
    if content.get("actions") is None:  # as in runs on data that was recorded in [-1, 1]
        return None
    scale = from_plain(ActionScale, content["actions"], str(path), "actions")
    if scale.width != model.action_width:
        raise AimeError(
            f"{path}: actions: found {scale.width} ranges, expected {model.action_width} as in model.action_width; "
            "restore the file or train again"
        )
    return scale


def _require(content: Mapping[str, Any], name: str, kind: type[T], path: Path, within: str = "") -> T:
    value = content.get(name)
    if not isinstance(value, kind):
        found = f"found {value!r}" if name in content else "missing"
        raise AimeError(f"{path}: {within}{name}: {found}, expected {_KINDS[kind]}; restore the file or train again")
    return value


def checkpoint_directory(run: str | Path) -> Path:
    """Where the last complete checkpoint of a run, a directory or bundled:NAME, is.

    Where a file system cannot exchange two directories, a checkpoint is replaced by two renames: between them, only the
    old one, renamed, is there.

    Raises:
        AimeError: if there is none.
    """
    run = locate(run)
    for name in ("checkpoint", "checkpoint.old", "checkpoint"):
        if (run / name).is_dir():
            return run / name
    raise AimeError(f"{run}: no checkpoint yet; expected {run / 'checkpoint'}: let `aime train` reach its first one")


def has_checkpoint(run: str | Path) -> bool:
    """Whether there is a complete checkpoint to read."""
    try:
        checkpoint_directory(run)
    except AimeError:
        return False
    return True


def read_checkpoint(run: str | Path, read: Callable[[Path], T], names: Iterable[str] | None = None) -> T:
    """What `read` finds in the directory of a run's last checkpoint, whose files are as they were written.

    A trainer may replace the checkpoint meanwhile: then the new one is read from the start.

    Args:
        run: a directory or bundled:NAME.
        read: called with the directory.
        names: of the files that are compared with their checksums; None for all.

    Raises:
        AimeError: if there is no checkpoint, a file in it is damaged, or `read` raises it.
    """
    return read_checked(lambda: checkpoint_directory(run), read, names)


def load_model(run: str | Path, kind: Callable[[ModelConfig], M]) -> M:
    """The model of a run, a directory or bundled:NAME, with its averaged weights, on the CPU, in eval mode.

    Weights in half precision are widened.

    Args:
        run: the run.
        kind: makes the model from its config.

    Raises:
        AimeError: if `run` is no run, has no checkpoint yet, or its weights are damaged, not finite or do not fit its
            config.
    """
    info = read_run(run)

    def load(directory: Path) -> M:
        path = directory / AVERAGED_WEIGHTS
        model = build_for(path, info.model, lambda: kind(info.model))
        model.action_scale = info.action_scale
        tensors = {
            name: each.float() if each.dtype == torch.float16 else each for name, each in read_weights(path).items()
        }
        fill(model, tensors, path)
        require_finite(tensors, path)
        return model.eval()

    return read_checkpoint(run, load)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the CPU; names that earlier versions wrote become the present ones.

    Raises:
        AimeError: if the file is missing, truncated or no safetensors file.
    """
    return {current_name(name): tensor for name, tensor in read_tensors(path).items()}


def current_name(name: str) -> str:
    """The present name of a model's tensor, or of what an optimizer or a balancer keeps of it."""
    kept, owner = ("consensus.", name[10:]) if name.startswith("consensus.") else ("", name)
    for old, new in RENAMED.items():
        if owner.startswith(old):
            return f"{kept}{new}{owner.removeprefix(old)}"
    return name
