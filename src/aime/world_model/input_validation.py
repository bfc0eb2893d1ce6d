"""Shapes and types of frames, actions and states that enter the model, for numbers that are known to be in range."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aime.errors import AimeError
from aime.primitives.arrays import Array, as_floats, as_tensor, dtype_name, expect_shape
from aime.primitives.pixels import to_unit
from aime.world_model.config import ModelConfig

_OTHER_INTEGERS = "0 to 255? convert them to uint8"
_KNOWN_WRONG = {
    torch.bool: "a mask? give pictures",
    torch.int64: _OTHER_INTEGERS,
    torch.int32: _OTHER_INTEGERS,
    torch.int16: _OTHER_INTEGERS,
    torch.uint16: "16 bit? divide by 65535",
}


def as_actions(given: Array, name: str) -> Tensor:
    """Actions as a tensor of floats."""
    discrete = "if they are discrete, one number a choice, 1 for what is chosen and -1 for the others"
    return as_floats(given, name, f" in [-1, 1]: {discrete}")


def admit_frames(given: Array, config: ModelConfig, like: Tensor, name: str = "frames") -> Float[Tensor, "B T 3 H W"]:
    """Frames as floats in [0, 1], in the type and on the device of `like`; ranges of floats are not checked.

    Args:
        given: a frame `[3,H,W]` or `[H,W,3]`, a clip `[T,…]` or a batch `[B,T,…]` of them; uint8 or float.
        config: has the size that frames must have.
        like: of the model.
        name: of the argument, for messages.

    Raises:
        AimeError: if they have another shape, or are neither uint8 nor float.
    """
    frames, size = as_tensor(given, name), config.image_size
    channels_first = frames.shape[-3:] == (3, size, size)
    if not 3 <= frames.ndim <= 5 or not frames.numel() or (not channels_first and frames.shape[-3:] != (size, size, 3)):
        raise AimeError(
            f"{name} have shape {list(frames.shape)}; expected a frame [3, {size}, {size}] or [{size}, {size}, 3], a "
            f"clip [T, …] or a batch [B, T, …] of them: {_shape_reason(frames, size)}"
        )
    if channels_first:
        # the layout the convolutions want, and the one that frames have on disk, so that this rarely copies
        frames = frames.movedim(-3, -1)
    if frames.dtype != torch.uint8 and not frames.is_floating_point():
        reason = _KNOWN_WRONG.get(frames.dtype, "convert them")
        raise AimeError(f"{name} are {dtype_name(frames)}; expected uint8, or floats in [0, 1]: {reason}")
    innermost = frames.reshape(*(1,) * (5 - frames.ndim), *frames.shape).contiguous()
    if innermost.dtype == torch.uint8:  # bytes travel to a device four times faster than floats
        innermost = to_unit(innermost.to(like.device), like.dtype)
    return innermost.to(like).permute(0, 1, 4, 2, 3)


def _shape_reason(frames: Tensor, size: int) -> str:
    """The likely reason for a shape that frames do not have."""
    last = tuple(frames.shape[-3:])
    if not frames.numel():
        return "there are none"
    if frames.ndim > 5:
        return "too many axes"
    if last in ((size, size, 4), (4, size, size)):
        return "transparent? lay them over a background, and leave the fourth channel out"
    if last == (size, size, 1) or last[-2:] == (size, size):
        return "grey? repeat them as three channels"
    channels = [len(last) == 3 and last[axis] == 3 for axis in (0, 2)]
    if all(channels):
        return "either axis may be the channels: say which by order, and resize them"
    if any(channels):
        return f"resize them to {size} x {size}, as `aime import` does"
    return "order their axes, and resize them"


ACTIONS_REMEDY = "give one action a frame, of the width that the model was trained on"


def admit_actions(
    actions: Tensor | None, valid: Bool[Tensor, "B T"] | None, shape: torch.Size, null_action: Float[Tensor, " A"]
) -> Float[Tensor, "B T A"]:
    """Actions `[B,T,A]` with the null action where they are missing; ranges are not checked.

    Raises:
        AimeError: if they are not `[B,T,A]` for these B, T and the model's A.
    """
    if actions is None:
        return null_action.expand(*shape, -1)
    expect_shape(actions, (*shape, len(null_action)), "actions", ACTIONS_REMEDY)
    actions = actions.to(null_action)
    return actions if valid is None else torch.where(valid[..., None].to(actions.device), actions, null_action)


def admit_states(
    states: Tensor | None, shape: torch.Size, config: ModelConfig, like: Tensor
) -> Float[Tensor, "*N S"] | None:
    """States `[*shape,S]` on the device and in the type of `like`; None for a model that observes frames alone.

    Raises:
        AimeError: if they are not `[*shape,S]` for the model's S.
    """
    if states is None or not config.state.width:
        return None
    remedy = "give one state a frame, of the width that the model was trained on"
    expect_shape(states, (*shape, config.state.width), "states", remedy)
    return states.to(like)
