"""Models on disk: the config and the weights of a run directory.

    RUN/config.yaml                  preset, model (the `ModelConfig`), train (everything else that decided the run),
                                     actions (what -1 and 1 mean in the units of the training data, if that says so)
    RUN/checkpoint/ema.safetensors   averaged weights and buffers, for evaluation and prediction

The weights are safetensors, the config is YAML without tags: reading them executes no code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor, nn

from aime.data.action_scale import ActionScale
from aime.errors import AimeError
from aime.primitives.files import write_atomically
from aime.primitives.plain import from_plain, read_yaml
from aime.world_model.bundled import locate
from aime.world_model.config import ModelConfig
from aime.world_model.model import AIME

CONFIG = "config.yaml"
AVERAGED_WEIGHTS = "ema.safetensors"

T = TypeVar("T")
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

    @property
    def data(self) -> str:
        """The data source that the run was trained on: a path or bundled:NAME."""
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
    return RunInfo(run, preset, model, train, _action_scale(content, model, path))


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

    A checkpoint is replaced by two renames: between them, only the old one, renamed, is there.

    Raises:
        AimeError: if there is none.
    """
    run = locate(run)
    for name in ("checkpoint", "checkpoint.old"):
        if (run / name).is_dir():
            return run / name
    raise AimeError(f"{run}: no checkpoint yet; expected {run / 'checkpoint'}: let `aime train` reach its first one")


def load_model(run: str | Path) -> AIME:
    """The model of a run, a directory or bundled:NAME, with its averaged weights, on the CPU, in eval mode.

    Weights in half precision are widened.

    Raises:
        AimeError: if `run` is no run, has no checkpoint yet, or its weights do not fit its config.
    """
    info = read_run(run)
    weights = checkpoint_directory(run) / AVERAGED_WEIGHTS
    stored = read_tensors(weights)
    tensors = {name: each.float() if each.dtype == torch.float16 else each for name, each in stored.items()}
    model = AIME(info.model)
    model.action_scale = info.action_scale
    fill(model, tensors, weights)
    return model.eval()


def save_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name as safetensors, whole or not at all; from any device, in any memory format.

    Raises:
        AimeError: if the disk is full or the file cannot be written.
    """
    packed = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_atomically(path, serialize(packed))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the CPU; runs no code.

    Raises:
        AimeError: if the file is missing, truncated or no safetensors file.
    """
    if not path.is_file():
        raise AimeError(f"{path}: missing, expected a safetensors file; restore the checkpoint or train again")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise AimeError(
            f"{path}: truncated or no safetensors file ({problem}); restore the checkpoint or train again"
        ) from error


def fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy tensors into a module's parameters and buffers, all of them or, if one does not fit, none.

    Args:
        module: it keeps its device, dtype and memory format.
        tensors: by the names of `module.state_dict()`.
        path: the file they came from, for messages.

    Raises:
        AimeError: if a tensor is missing, unexpected or of another shape or dtype.
    """
    state = module.state_dict()
    for name, own in state.items():
        if name not in tensors:
            raise _misfit(path, name, "missing", _shape(own))
        if _shape(tensors[name]) != _shape(own):
            raise _misfit(path, name, f"found {_shape(tensors[name])}", _shape(own))
    for name in tensors:
        if name not in state:
            raise _misfit(path, name, f"found {_shape(tensors[name])}", f"only the model's {len(state)} tensors")
    module.load_state_dict(dict(tensors))


def _misfit(path: Path, name: str, found: str, expected: str) -> AimeError:
    remedy = "take the weights that belong to this config"
    return AimeError(f"{path}: tensor '{name}': {found}, expected {expected}; {remedy}")


def _shape(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
