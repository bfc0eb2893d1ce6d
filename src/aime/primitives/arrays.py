"""Checks of the types and shapes of arguments: torch tensors and numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from aime.errors import AimeError

Array = Tensor | np.ndarray
"""An argument of the public API: a torch tensor on any device, or a numpy array."""


def as_tensor(given: Array, name: str) -> Tensor:
    """Convert a numpy array to a tensor, with shared memory if possible; a tensor is unchanged.

    Raises:
        AimeError: if it is neither, or the array's type is not numeric.
    """
    if isinstance(given, Tensor):
        return given
    if not isinstance(given, np.ndarray):
        raise AimeError(f"{name} are a {type(given).__name__}; expected a torch tensor or a numpy array: np.asarray(…)")
    native = given.astype(given.dtype.newbyteorder("="), copy=False)
    # torch does not support negative strides, and warns of read-only memory
    shareable = native.flags.writeable and all(stride >= 0 for stride in native.strides)
    try:
        return torch.from_numpy(native if shareable else native.copy())
    except TypeError:
        raise AimeError(f"{name} are an array of {given.dtype}; expected numbers: convert them") from None


def as_floats(given: Array, name: str, remedy: str = ": convert them") -> Tensor:
    """As `as_tensor`, for floats.

    Raises:
        AimeError: if the type is not floating-point.
    """
    tensor = as_tensor(given, name)
    if not tensor.is_floating_point():
        raise AimeError(f"{name} are {dtype_name(tensor)}; expected floats{remedy}")
    return tensor


def dtype_name(tensor: Tensor) -> str:
    """The name of a tensor's type, for messages."""
    return str(tensor.dtype).removeprefix("torch.")


def expect_shape(given: Tensor, expected: Sequence[int | str], name: str, remedy: str) -> None:
    """Check a tensor's shape; a string stands for any size.

    Raises:
        AimeError: if the shape differs; names both shapes.
    """
    sizes = [found if isinstance(size, str) else size for found, size in zip(given.shape, expected, strict=False)]
    if given.ndim != len(expected) or list(given.shape) != sizes:
        have = "have" if name.endswith("s") else "has"
        wanted = ", ".join(map(str, expected))
        raise AimeError(f"{name} {have} shape {list(given.shape)}; expected [{wanted}]: {remedy}")
