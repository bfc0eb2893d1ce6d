"""Arrays that come from outside: torch tensors and numpy arrays, their types and shapes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from aime.errors import AimeError

Array = Tensor | np.ndarray
"""What the public API takes: torch tensors on any device, and numpy arrays."""


def as_tensor(given: Array, name: str) -> Tensor:
    """A numpy array as a tensor that shares its memory where it can; a tensor as it is.

    Raises:
        AimeError: if it is neither, or an array of no numbers.
    """
    if isinstance(given, Tensor):
        return given
    if not isinstance(given, np.ndarray):
        raise AimeError(f"{name} are a {type(given).__name__}; expected a torch tensor or a numpy array: np.asarray(…)")
    native = given.astype(given.dtype.newbyteorder("="), copy=False)
    # torch takes no negative strides, and warns of memory that it could not write to
    shareable = native.flags.writeable and all(stride >= 0 for stride in native.strides)
    try:
        return torch.from_numpy(native if shareable else native.copy())
    except TypeError:
        raise AimeError(f"{name} are an array of {given.dtype}; expected numbers: convert them") from None


def as_floats(given: Array, name: str, remedy: str = ": convert them") -> Tensor:
    """As `as_tensor`, for numbers that must be floats.

    Raises:
        AimeError: if they are whole numbers or truth values.
    """
    tensor = as_tensor(given, name)
    if not tensor.is_floating_point():
        raise AimeError(f"{name} are {dtype_name(tensor)}; expected floats{remedy}")
    return tensor


def dtype_name(tensor: Tensor) -> str:
    """The type of its numbers, for messages."""
    return str(tensor.dtype).removeprefix("torch.")


def expect_shape(given: Tensor, expected: Sequence[int | str], name: str, remedy: str) -> None:
    """Refuse a tensor of another shape; a word stands for any size.

    Raises:
        AimeError: naming both shapes.
    """
    sizes = [found if isinstance(size, str) else size for found, size in zip(given.shape, expected, strict=False)]
    if given.ndim != len(expected) or list(given.shape) != sizes:
        have = "have" if name.endswith("s") else "has"
        wanted = ", ".join(map(str, expected))
        raise AimeError(f"{name} {have} shape {list(given.shape)}; expected [{wanted}]: {remedy}")
