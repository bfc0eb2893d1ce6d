"""Shapes and types of frames, actions and states that enter the model, for numbers that are known to be in range."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aime.errors import AimeError
from aime.primitives.pixels import to_unit
from aime.world_model.config import ModelConfig

Array = Tensor | np.ndarray
"""What the public API takes: torch tensors on any device, and numpy arrays."""

_KNOWN_WRONG = {
    torch.bool: "a mask? give pictures",
    torch.int64: "0 to 255? convert them to uint8",
    torch.int32: "0 to 255? convert them to uint8",
    torch.int16: "0 to 255? convert them to uint8",
    torch.uint16: "16 bit? divide by 65535",
}


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
    try:
        # torch takes no negative strides, and warns of memory that it could not write to
        return torch.from_numpy(native if native.flags.writeable and _forward(native) else native.copy())
    except TypeError:
        raise AimeError(f"{name} are an array of {given.dtype}; expected numbers: convert them") from None


def _forward(array: np.ndarray) -> bool:
    return all(stride >= 0 for stride in array.strides)


def as_actions(given: Array, name: str) -> Tensor:
    """Actions as a tensor of floats.

    Raises:
        AimeError: if they are whole numbers or truth values.
    """
    actions = as_tensor(given, name)
    if not actions.is_floating_point():
        raise AimeError(
            f"{name} are {dtype_name(actions)}; expected floats in [-1, 1]: if they are discrete, one number a choice, "
            "1 for what is chosen and -1 for the others"
        )
    return actions


def as_batch(given: Tensor, axes: int, single: bool) -> Tensor:
    """With an axis for the batch where a single clip or row came without one."""
    return given[None] if single and given.ndim == axes else given


def dtype_name(tensor: Tensor) -> str:
    """The type of its numbers, for messages."""
    return str(tensor.dtype).removeprefix("torch.")


def admit_frames(given: Array, config: ModelConfig, like: Tensor, name: str = "frames") -> Float[Tensor, "B T 3 H W"]:
    """Frames as floats in [0, 1], in the type and on the device of `like`; numbers of floats are not looked at.

    Args:
        given: a frame `[3,H,W]` or `[H,W,3]`, a clip `[T,…]` or a batch `[B,T,…]` of them; uint8 or float.
        config: has the size that frames must have.
        like: of the model.
        name: of the argument, for messages.

    Raises:
        AimeError: if they have another shape, or are neither uint8 nor float.
    """
    frames, size = as_tensor(given, name), config.image_size
    if frames.ndim < 3 or frames.ndim > 5 or not frames.numel():
        raise _bad_shape(frames, size, name)
    if frames.shape[-3:] == (3, size, size):
        # the layout the convolutions want, and the one that frames have on disk, so that this rarely copies
        frames = frames.movedim(-3, -1)
    elif frames.shape[-3:] != (size, size, 3):
        raise _bad_shape(frames, size, name)
    if frames.dtype != torch.uint8 and not frames.is_floating_point():
        reason = _KNOWN_WRONG.get(frames.dtype, "convert them")
        raise AimeError(f"{name} are {dtype_name(frames)}; expected uint8, or floats in [0, 1]: {reason}")
    innermost = frames.reshape(*(1,) * (5 - frames.ndim), *frames.shape).contiguous()
    if innermost.dtype == torch.uint8:  # bytes travel to a device four times faster than floats
        innermost = to_unit(innermost.to(like.device), like.dtype)
    return innermost.to(like).permute(0, 1, 4, 2, 3)


def _bad_shape(frames: Tensor, size: int, name: str) -> AimeError:
    """Says what is wrong with a shape, and the likely reason."""
    shape = list(frames.shape)
    return AimeError(
        f"{name} have shape {shape}; expected a frame [3, {size}, {size}] or [{size}, {size}, 3], a clip [T, …] or a "
        f"batch [B, T, …] of them: {_shape_reason(shape, size)}"
    )


def _shape_reason(shape: list[int], size: int) -> str:
    if not all(shape):
        return "there are none"
    if len(shape) > 5:
        return "too many axes"
    last = tuple(shape[-3:])
    if last in ((size, size, 4), (4, size, size)):
        return "transparent? lay them over a background, and leave the fourth channel out"
    if last == (size, size, 1) or last[-2:] == (size, size):
        return "grey? repeat them as three channels"
    channels_first, channels_last = len(last) == 3 and last[0] == 3, len(last) == 3 and last[2] == 3
    if channels_first and channels_last:
        return "either axis may be the channels: say which by order, and resize them"
    if channels_first or channels_last:
        return f"resize them to {size} x {size}, as `aime import` does"
    return "order their axes, and resize them"


def admit_actions(
    actions: Tensor | None, valid: Bool[Tensor, "B T"] | None, shape: torch.Size, null_action: Float[Tensor, " A"]
) -> Float[Tensor, "B T A"]:
    """Actions `[B,T,A]` with the null action where they are missing; their numbers are not looked at.

    Raises:
        AimeError: if they are not `[B,T,A]` for these B, T and the model's A.
    """
    width = null_action.shape[0]
    if actions is None:
        return null_action.expand(*shape, width)
    expect_actions(actions, shape, width)
    actions = actions.to(null_action)
    return actions if valid is None else torch.where(valid[..., None].to(actions.device), actions, null_action)


def expect_actions(actions: Tensor, shape: torch.Size, width: int) -> None:
    """Refuse actions of another shape.

    Raises:
        AimeError: if they are not `[*shape,width]`.
    """
    expected = (*shape, width)
    if actions.shape != expected:
        raise AimeError(
            f"actions have shape {list(actions.shape)}; expected {list(expected)} (batch, frames, action width): "
            "give one action a frame, of the width that the model was trained on"
        )


def admit_states(
    states: Tensor | None, shape: torch.Size, config: ModelConfig, like: Tensor
) -> Float[Tensor, "*N S"] | None:
    """States `[*shape,S]` on the device and in the type of `like`; None for a model that observes frames alone.

    Raises:
        AimeError: if they are not `[*shape,S]` for the model's S.
    """
    if states is None or not config.state.width:
        return None
    expected = (*shape, config.state.width)
    if states.shape != expected:
        raise AimeError(
            f"states have shape {list(states.shape)}; expected {list(expected)}: give one state a frame, of the width "
            "that the model was trained on"
        )
    return states.to(like)
