"""What a plan costs, in the terms of stable-worldmodel's solvers, which plan with any model that has `get_cost`.

The convention, of stable-worldmodel 0.1: a solver repeats what it knows of B environments for each of S candidates, and
asks for the cost `[B,S]` of candidates `[B,S,H,A]`. Only candidate 0's copy is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from aime.dynamics.choices import likeliest
from aime.dynamics.heads.control import Control
from aime.dynamics.latent_dynamics import LatentDynamics
from aime.dynamics.states import Carry
from aime.errors import AimeError
from aime.primitives.arrays import Array, expect_shape
from aime.world_model.checked_inputs import CheckedInputs
from aime.world_model.core import WorldModel
from aime.world_model.input_validation import as_actions


class Costing(WorldModel):
    """A world model that stable-worldmodel's solvers plan with."""

    def get_cost(self, info: Mapping[str, Any], action_candidates: Float[Tensor, "B S H A"]) -> Float[Tensor, "B S"]:
        """What plans cost, as stable-worldmodel's solvers ask for it; differentiable in the actions.

        With a goal, the squared distance of the last imagined latent from the goal frame's; without one, minus the sum
        of the predicted rewards. Every step takes the heaviest component's mean.

        Args:
            info: `pixels` `[B,S,T,3,H,W]` or `[B,S,T,H,W,3]`, the same for all S; perhaps `goal` alike, whose last
                frame counts, `action` `[B,S,T,A]`, which led to each frame, and `state` `[B,S,T,·]`, where observed.
            action_candidates: `[B,S,H,A]` from the last frame on, clipped to [-1, 1]; the last axis may hold several
                steps in a block. Beyond ±10 they are refused: no noise of a solver reaches so far.

        Raises:
            AimeError: if a shape, type or range does not fit the model, or there is neither a goal nor a reward head
                trained on rewards.
        """
        with CheckedInputs(self) as checked:
            actions = _candidates(self, checked, action_candidates)
            with torch.no_grad():
                state = _present(self, checked, info)
                goal = _latent_of(self, checked, info["goal"]) if "goal" in info else None
            for name, known in (("pixels", state.latent), ("goal", goal)):
                if known is not None and known.shape[0] != actions.shape[0]:
                    raise AimeError(
                        f"info['{name}'] shows {known.shape[0]} environments, expected {actions.shape[0]} as in "
                        "action_candidates"
                    )
            control = checked.rewarding("info has no 'goal', and ") if goal is None else None
            return _cost(self.dynamics, state, goal, control, actions)


def _cost(
    dynamics: LatentDynamics,
    state: Carry,
    goal: Float[Tensor, "B latent"] | None,
    control: Control | None,
    actions: Float[Tensor, "B S H A"],
) -> Float[Tensor, "B S"]:
    batch, samples = actions.shape[:2]
    # a graph over the model's weights is of no use to a solver that asks for no gradient
    with torch.set_grad_enabled(torch.is_grad_enabled() and actions.requires_grad):
        start = state.repeated(samples)
        dream = dynamics.rollout(start, rearrange(actions, "b s h a -> (b s) h a"), likeliest)
        if goal is not None:
            cost = (dream.latents[:, -1] - repeat(goal, "b d -> (b s) d", s=samples)).square().sum(-1)
        else:
            assert control is not None, "checked where there is no goal"
            cost = -control.reward(*dream.read).mean.sum(-1)
    return rearrange(cost, "(b s) -> b s", b=batch)


def _present(model: WorldModel, checked: CheckedInputs, info: Mapping[str, Any]) -> Carry:
    """The state after the last frame of each environment."""
    if "pixels" not in info:
        raise AimeError(f"info has no 'pixels', only {', '.join(map(str, info)) or 'nothing'}; expected frames")
    frames = checked.frames(_of_one(info["pixels"], "pixels"), "info['pixels']")
    length = frames.shape[1]
    actions = valid = None
    if length > 1 and "action" in info:
        # action t there is the one that led to frame t: NaN, or of no use, at the first
        led_here = as_actions(_array(info["action"]), "info['action']")[:, 0].to(model.null_action)
        shape = (*frames.shape[:2], model.config.action_width)
        expect_shape(led_here, shape, "info['action']", "give the action that led to each frame, for each candidate")
        actions = torch.cat([led_here[:, 1:], led_here[:, :1]], dim=1)
        valid = actions.isfinite().all(-1)
        valid[:, -1] = False
        checked.action_values(torch.where(valid[..., None], actions, 0), "info['action']")
    states = None
    if model.config.state.width and "state" in info:
        states = checked.states(_array(info["state"])[:, 0], frames.shape[:2])
    return model.dynamics.states_at(model.filter_sequence(frames, actions, valid, states).track, -1)


def _latent_of(model: WorldModel, checked: CheckedInputs, goal: Any) -> Float[Tensor, "B latent"]:
    """The latent of the last of some frames, each seen for the first time."""
    frames = checked.frames(_of_one(goal, "goal")[:, -1:], "info['goal']")
    return model.infer(model.perceive(frames)).mean[:, -1]


def _array(given: Any) -> Array:
    return given if isinstance(given, Tensor) else np.asarray(given)


def _of_one(pixels: Any, name: str) -> Array:
    """The frames `[B,T,…]` of candidate 0."""
    pixels = _array(pixels)
    if pixels.ndim != 6:
        raise AimeError(
            f"info['{name}'] has shape {list(pixels.shape)}; expected [B, S, T, 3, H, W] or [B, S, T, H, W, 3] (batch, "
            "candidates, frames)"
        )
    return pixels[:, 0]


def _candidates(model: WorldModel, checked: CheckedInputs, candidates: Tensor) -> Float[Tensor, "B S H A"]:
    """The candidates on the model's device, a step a row: a row of a plan may hold several steps in a block."""
    width = model.config.action_width
    if candidates.ndim != 4 or candidates.shape[-1] % width or not candidates.numel():
        raise AimeError(
            f"action_candidates have shape {list(candidates.shape)}; expected [B, S, H, {width}], or blocks of such "
            "actions in the last axis"
        )
    candidates = as_actions(candidates, "action_candidates")
    checked.clipped_actions(candidates, "action_candidates")
    steps = rearrange(candidates, "b s h (k a) -> b s (h k) a", a=width)
    return steps.to(model.null_action).clamp(-1, 1)
