"""Safetensors files: writing, reading without running code, and loading into modules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from aime.errors import AimeError, one_line
from aime.primitives.config_io import Plain, to_plain
from aime.primitives.files import write_atomically

M = TypeVar("M", bound=nn.Module)

_LONGEST_HEADER = 8 * 2**20
"""Largest header of a safetensors file, in bytes; one of ten thousand tensors needs 1 MiB."""

_SMALL = 4096
"""Sizes up to this cannot make a single tensor exceed memory."""


def save_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name as safetensors, atomically.

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
    shapes_of(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        problem = one_line(error)
        raise AimeError(
            f"{path}: truncated or no safetensors file ({problem}); restore the checkpoint or train again"
        ) from error


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a safetensors file's tensors by name; reads the header only.

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
    """Build a module for weights on disk, with memory bounded by theirs.

    Args:
        weights: a safetensors file.
        config: of the module, not trusted.
        make: builds the module from the config.

    Raises:
        AimeError: if the file cannot be read, the module cannot be built, or it is larger than the file's weights.
    """
    shapes = shapes_of(weights)
    with _no_more_than(shapes, weights):
        if _largest(to_plain(config)) > _SMALL:  # first without allocation, on the meta device
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
    """Refuse a module under construction when it has more tensors or numbers than the file, with a margin."""
    # the margin: a module may register a tensor twice or replace it
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
    """Refuse weights with NaN or infinity.

    Raises:
        AimeError: naming the first such tensor.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise AimeError(
                f"{path}: tensor '{name}': found NaN or infinity, expected finite weights; restore an earlier copy"
            )


def fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy tensors into a module's parameters and buffers; none is copied if one does not fit.

    Args:
        module: keeps its device, dtype and memory format.
        tensors: by the names of `module.state_dict()`.
        path: the file, for error messages.

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
