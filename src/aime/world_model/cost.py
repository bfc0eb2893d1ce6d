"""What a plan costs, in the terms of stable-worldmodel's solvers, which plan with any model that has `get_cost`.

The convention, of stable-worldmodel 0.1: a solver repeats what it knows of B environments for each of S candidates, and
asks for the cost `[B,S]` of candidates `[B,S,H,A]`. Only candidate 0's copy is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from aime.errors import AimeError
from aime.world_model import imagination
from aime.world_model.imagination import likeliest
from aime.world_model.outputs import Dream, DreamState
from aime.world_model.stepping import watch

if TYPE_CHECKING:
    from aime.world_model.model import AIME


def get_cost(
    model: AIME, info: Mapping[str, Any], action_candidates: Float[Tensor, "B S H KA"]
) -> Float[Tensor, "B S"]:
    """See `AIME.get_cost`."""
    actions = _candidates(model, action_candidates)
    batch, samples = actions.shape[:2]
    with torch.no_grad():
        state = _present(model, info)
        goal = _latent_of(model, info["goal"], "goal") if "goal" in info else None
    if state.latent.shape[0] != batch:
        raise AimeError(
            f"info['pixels'] shows {state.latent.shape[0]} environments, expected {batch} as in action_candidates"
        )
    # a graph over the model's weights is of no use to a solver that asks for no gradient
    with torch.set_grad_enabled(torch.is_grad_enabled() and actions.requires_grad):
        start = state.repeated(samples)
        dream = imagination.rollout(model, start, rearrange(actions, "b s h a -> (b s) h a"), likeliest)
        if goal is not None:
            cost = (dream.latents[:, -1] - repeat(goal, "b d -> (b s) d", s=samples)).square().sum(-1)
        else:
            cost = -_rewards(model, dream, start).sum(-1)
    return rearrange(cost, "(b s) -> b s", b=batch)


def _rewards(model: AIME, dream: Dream, start: DreamState) -> Float[Tensor, "N F"]:
    if model.control is None:
        raise AimeError(
            "info has no 'goal', and the model no reward head (control.kind is none); expected one of them: give a "
            "goal frame, or train without --model.control.kind none"
        )
    return model.control.reward(dream.beliefs, dream.latents, dream.steps(start)).mean


def _present(model: AIME, info: Mapping[str, Any]) -> DreamState:
    """The state after the last frame of each environment."""
    if "pixels" not in info:
        raise AimeError(f"info has no 'pixels', only {', '.join(map(str, info)) or 'nothing'}; expected frames")
    frames = _frames(info["pixels"], "pixels")
    length = frames.shape[1]
    actions = valid = None
    if length > 1 and "action" in info:
        # action t there is the one that led to frame t: NaN, or of no use, at the first
        led_here = torch.as_tensor(info["action"])[:, 0].to(model.null_action)
        if led_here.shape != (*frames.shape[:2], model.config.action_width):
            raise AimeError(
                f"info['action'] has shape {list(led_here.shape)} without its candidates, expected "
                f"{[*frames.shape[:2], model.config.action_width]}: give the action that led to each frame"
            )
        actions = torch.cat([led_here[:, 1:], led_here[:, :1]], dim=1)
        valid = actions.isfinite().all(-1)
        valid[:, -1] = False
    states = None
    if model.config.state.width and "state" in info:
        states = torch.as_tensor(info["state"])[:, 0]
    track, _ = watch(model, frames, actions, valid, states)
    return imagination.state_at(model, track, -1)


def _latent_of(model: AIME, frames: Any, name: str) -> Float[Tensor, "B latent"]:
    """The latent of the last of some frames, each seen for the first time."""
    return model.encode(_frames(frames, name)[:, -1:])[:, -1]


def _frames(pixels: Any, name: str) -> Tensor:
    """Frames `[B,T,3,H,W]` of candidate 0, from either order of the axes."""
    pixels = torch.as_tensor(pixels)
    if pixels.ndim != 6 or 3 not in (pixels.shape[-1], pixels.shape[-3]):
        raise AimeError(
            f"info['{name}'] has shape {list(pixels.shape)}; expected [B, S, T, 3, H, W] or [B, S, T, H, W, 3] (batch, "
            "candidates, frames)"
        )
    first = pixels[:, 0]
    return first if first.shape[-3] == 3 else first.movedim(-1, -3)


def _candidates(model: AIME, candidates: Tensor) -> Float[Tensor, "B S H A"]:
    """The candidates on the model's device, a step a row: a row of a plan may hold several steps in a block."""
    width = model.config.action_width
    if candidates.ndim != 4 or candidates.shape[-1] % width or not candidates.numel():
        raise AimeError(
            f"action_candidates have shape {list(candidates.shape)}; expected [B, S, H, {width}], or blocks of such "
            "actions in the last axis"
        )
    steps = rearrange(candidates, "b s h (k a) -> b s (h k) a", a=width)
    return steps.to(model.null_action).clamp(-1, 1)
