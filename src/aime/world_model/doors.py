"""Checks at the model's public doors: shapes, types and ranges of frames, actions and states."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aime.errors import AimeError
from aime.world_model.config import ModelConfig


def admit_frames(frames: Tensor, config: ModelConfig, like: Tensor) -> Float[Tensor, "B T 3 H W"]:
    """Frames as floats in [0, 1], in the type and on the device of `like`.

    Raises:
        AimeError: if they are not `[B,T,3,H,W]` of the model's size, or neither uint8 nor float.
    """
    size = config.image_size
    if frames.ndim != 5 or frames.shape[2:] != (3, size, size):
        raise AimeError(
            f"frames have shape {list(frames.shape)}; expected [B, T, 3, {size}, {size}]: resize or transpose them"
        )
    frames = _channels_innermost(frames)
    if frames.dtype == torch.uint8:
        return frames.to(like.device).to(like.dtype) / 255
    if not frames.is_floating_point():
        raise AimeError(f"frames are {frames.dtype}; expected uint8, or floats in [0, 1]: convert them")
    return frames.to(like)


def admit_actions(
    actions: Tensor | None, valid: Bool[Tensor, "B T"] | None, shape: torch.Size, null_action: Float[Tensor, " A"]
) -> Float[Tensor, "B T A"]:
    """Actions `[B,T,A]` with the null action where they are missing.

    Raises:
        AimeError: if they are not `[B,T,A]` for these B, T and the model's A.
    """
    expected = (*shape, null_action.shape[0])
    if actions is None:
        return null_action.expand(expected)
    if actions.shape != expected:
        raise AimeError(
            f"actions have shape {list(actions.shape)}; expected {list(expected)} (batch, frames, action width): "
            "give one action a frame, of the width that the model was trained on"
        )
    actions = actions.to(null_action)
    return actions if valid is None else torch.where(valid[..., None].to(actions.device), actions, null_action)


def observed(states: Float[Tensor, "..."] | None, config: ModelConfig) -> Float[Tensor, "..."] | None:
    """The states of recorded clips as far as a model observes any: None for one that observes frames alone."""
    return states if config.state.width else None


def admit_states(
    states: Tensor | None, shape: torch.Size, config: ModelConfig, like: Tensor
) -> Float[Tensor, "*N S"] | None:
    """States `[*shape,S]` on the device of `like`, in single precision or the type of `like`; None stays None.

    Raises:
        AimeError: if the model observes no state, or they are not `[*shape,S]` for its S.
    """
    if states is None:
        return None
    width = config.state.width
    if not width:
        raise AimeError(
            f"states have shape {list(states.shape)}, and the model observes none; expected None: leave them out, or "
            "train with --observe-state"
        )
    expected = (*shape, width)
    if states.shape != expected:
        raise AimeError(
            f"states have shape {list(states.shape)}; expected {list(expected)}: give one state a frame, of the width "
            "that the model was trained on"
        )
    return states.to(like)


def _channels_innermost(frames: Tensor) -> Tensor:
    # the layout the convolutions want, and the one that frames have on disk, so that this rarely copies
    return frames.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
