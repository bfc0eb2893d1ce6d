"""Models on disk: the config and the weights of a run directory.

    RUN/config.yaml                  preset, model (the `ModelConfig`), train (everything else that decided the run),
                                     actions (what -1 and 1 mean in the units of the training data, if that says so)
    RUN/manifest.json                what was trained on, by content: see `aime.data.manifest`
    RUN/checkpoint/ema.safetensors   averaged weights and buffers, for evaluation and prediction

The weights are safetensors, the config is YAML without tags: reading them executes no code. The checkpoint's files are
compared with its SHA256SUMS, where it has them, whenever one of them is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from aime.data.action_scale import ActionScale
from aime.data.manifest import MANIFEST, Manifest, find_manifest
from aime.data.shards import Attribute
from aime.errors import AimeError, one_line
from aime.primitives.checksums import check_sums
from aime.primitives.config_io import Plain, from_plain, read_yaml, to_plain
from aime.primitives.files import write_atomically
from aime.world_model.bundled import locate
from aime.world_model.config import ModelConfig
from aime.world_model.model import AIME

CONFIG = "config.yaml"
AVERAGED_WEIGHTS = "ema.safetensors"

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)

_TRIES = 20
"""A reader's, when a trainer replaces the checkpoint under it; a save takes longer than a look."""

_LONGEST_HEADER = 8 * 2**20
"""Bytes of a safetensors file's header: a model of ten thousand tensors has one."""

_SMALL = 4096
"""Sizes up to this cannot make one tensor too large for any machine."""

RENAMED: Mapping[str, str] = {
    "dynamics.lstm.": "dynamics.recurrence.lstm.",
    "dynamics.initial_belief": "dynamics.recurrence.initial_belief",
    "dynamics.initial_cell": "dynamics.recurrence.initial_cell",
    "prior.": "dynamics.prior.",
    "expect_context.": "dynamics.expect_context.",
    "imply_context.": "dynamics.imply_context.",
    "control.": "dynamics.control.",
    "initial_latent": "dynamics.initial_latent",
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
    for last in [False] * (_TRIES - 1) + [True]:
        directory = checkpoint_directory(run)
        before = _identity(directory)
        try:
            check_sums(directory, names)
            found = read(directory)
        except (AimeError, OSError):
            if last or _identity(directory) == before:
                raise
            continue
        if last or _identity(directory) == before:
            return found
    raise AssertionError("the last try returns or raises")


def _identity(directory: Path) -> tuple[int, int] | None:
    try:
        found = directory.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def load_model(run: str | Path) -> AIME:
    """The model of a run, a directory or bundled:NAME, with its averaged weights, on the CPU, in eval mode.

    Weights in half precision are widened.

    Raises:
        AimeError: if `run` is no run, has no checkpoint yet, or its weights are damaged, not finite or do not fit its
            config.
    """
    info = read_run(run)
    return read_checkpoint(run, lambda directory: _load(info, directory / AVERAGED_WEIGHTS))


def _load(info: RunInfo, weights: Path) -> AIME:
    model = build_for(weights, info.model, lambda: AIME(info.model))
    stored = read_tensors(weights)
    tensors = {name: each.float() if each.dtype == torch.float16 else each for name, each in stored.items()}
    model.action_scale = info.action_scale
    fill(model, tensors, weights)
    require_finite(tensors, weights)
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

    Names that earlier versions wrote are replaced by the present ones.

    Raises:
        AimeError: if the file is missing, truncated or no safetensors file.
    """
    shapes_of(path)
    try:
        return {current_name(name): tensor for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError, ValueError) as error:
        problem = one_line(error)
        raise AimeError(
            f"{path}: truncated or no safetensors file ({problem}); restore the checkpoint or train again"
        ) from error


def current_name(name: str) -> str:
    """The present name of a model's tensor, or of what an optimizer or a balancer keeps of it."""
    kept, owner = ("consensus.", name[10:]) if name.startswith("consensus.") else ("", name)
    for old, new in RENAMED.items():
        if owner.startswith(old):
            return f"{kept}{new}{owner.removeprefix(old)}"
    return name


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a safetensors file's tensors by name, from its header alone.

    Raises:
        AimeError: if the file is missing, truncated or no safetensors file.
    """
    if not path.is_file():
        raise AimeError(f"{path}: missing, expected a safetensors file; restore the checkpoint or train again")
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"its header claims {length} bytes")
        with safe_open(path, "pt") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        problem = one_line(error)
        raise AimeError(
            f"{path}: truncated or no safetensors file ({problem}); restore the checkpoint or train again"
        ) from error


def build_for(weights: Path, config: object, make: Callable[[], M]) -> M:
    """A module that weights on disk are going to fill, which takes no more memory than they do.

    Args:
        weights: a safetensors file.
        config: what the module is made from: its sizes may be anything.
        make: builds the module.

    Raises:
        AimeError: if the file cannot be read, no module can be built from the config, or it would have more tensors or
            numbers than the file.
    """
    shapes = shapes_of(weights)
    with _no_more_than(shapes, weights):
        if _largest(to_plain(config)) > _SMALL:  # on a device without memory, before any is asked for
            try:
                with torch.device("meta"):
                    make()
            except (RuntimeError, OverflowError, MemoryError, TypeError) as error:
                raise _too_large(weights) from error
        try:
            return make()
        except AimeError:
            raise
        except (RuntimeError, ValueError, ArithmeticError, TypeError, LookupError, AssertionError) as error:
            if "memory" in str(error):
                raise
            raise AimeError(
                f"{weights}: no module can be built from its config ({one_line(error)[:120]}); restore the config"
            ) from error


@contextmanager
def _no_more_than(shapes: Mapping[str, tuple[int, ...]], path: Path) -> Iterator[None]:
    """Stop the building of a module as soon as it has more tensors, or numbers in them, than there are on disk."""
    # a module may register a tensor twice, or replace one by another
    tensors, numbers = 2 * len(shapes) + 16, 2 * sum(map(math.prod, shapes.values())) + 2**16
    registered = {"tensors": 0, "numbers": 0}

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        registered["tensors"] += 1
        registered["numbers"] += 0 if tensor is None else tensor.numel()
        if registered["tensors"] > tensors or registered["numbers"] > numbers:
            raise _too_large(path)

    hooks = register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _too_large(path: Path) -> AimeError:
    return AimeError(f"{path}: the config's model is larger than these weights; take the weights of this config")


def _largest(plain: Plain) -> int:
    """The largest integer in plain data."""
    if isinstance(plain, dict):
        return max(map(_largest, plain.values()), default=0)
    if isinstance(plain, list):
        return max(map(_largest, plain), default=0)
    return plain if isinstance(plain, int) else 0


def require_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights with NaN or infinity in them: nothing computed with them means anything.

    Raises:
        AimeError: naming the first such tensor.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise AimeError(
                f"{path}: tensor '{name}': found NaN or infinity, expected finite weights; restore an earlier copy"
            )


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
    stand_ins: Mapping[str, str] = getattr(module, "stand_ins", {})
    counts: Mapping[str, int] = getattr(module, "unknown", {})
    unknown = {name: torch.full_like(state[name], count) for name, count in counts.items() if name in state}
    tensors = {**{name: tensors[other] for name, other in stand_ins.items() if other in tensors}, **unknown, **tensors}
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
