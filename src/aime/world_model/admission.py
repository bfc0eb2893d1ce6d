"""Frames, actions and states that enter the public API: shapes, types and ranges are checked, and all is converted."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aime.dynamics.heads.control import Control
from aime.dynamics.latent_dynamics import NO_REWARDS
from aime.errors import AimeError
from aime.world_model import values
from aime.world_model.core import WorldModel
from aime.world_model.input_validation import (
    Array,
    admit_actions,
    admit_frames,
    admit_states,
    as_actions,
    as_batch,
    as_tensor,
    dtype_name,
    expect_actions,
)
from aime.world_model.outputs import BeliefState
from aime.world_model.values import ValueChecks


class Admission:
    """What enters one call of the public API, checked and converted to the model's device and type.

    A context manager around the call: on a GPU the numbers are judged at its end, see `ValueChecks`.
    """

    def __init__(self, model: WorldModel) -> None:
        self.model, self.config, self.like = model, model.config, model.null_action
        self._values = ValueChecks()
        self._one_clip = False

    def __enter__(self) -> Admission:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._values.__exit__(kind, error, traceback)

    def frames(self, given: Array, name: str = "frames") -> Float[Tensor, "B T 3 H W"]:
        """Frames of any layout that `AIME.prepare` takes."""
        self._one_clip = getattr(given, "ndim", 0) < 5
        return self._looked_at(as_tensor(given, name), name)

    def frame(self, given: Array, batch: int) -> Float[Tensor, "B 1 3 H W"]:
        """One frame of each of `batch` videos."""
        frame, size = as_tensor(given, "frame"), self.config.image_size
        if frame.ndim == 3 and batch == 1:
            frame = frame[None]
        if frame.ndim != 4 or frame.shape[0] != batch:
            raise AimeError(
                f"frame has shape {list(frame.shape)}; expected [{batch}, 3, {size}, {size}] or [{batch}, {size}, "
                f"{size}, 3]: one frame for each of the {batch} videos of the state"
            )
        return self._looked_at(frame[:, None], "frame")

    def _looked_at(self, given: Tensor, name: str) -> Float[Tensor, "B T 3 H W"]:
        if not given.is_floating_point():
            return admit_frames(given, self.config, self.like, name)
        # numbers that the host has are judged before a GPU gets them
        frames = admit_frames(given, self.config, self.like if self.like.device == given.device else given, name)
        innermost = frames.permute(0, 1, 3, 4, 2)
        self._values.extremes(innermost, values.judge_frames(name, frames))
        return frames.to(self.like)

    def actions(
        self, given: Array | None, shape: torch.Size, valid: Array | None = None, last_unused: bool = False
    ) -> Float[Tensor, "B T A"]:
        """Actions of B clips of T frames, with the null action where they are missing."""
        if given is None:
            return admit_actions(None, None, shape, self.like)
        actions = as_batch(as_actions(given, "actions"), 2, self._one_clip)
        expect_actions(actions, shape, self.like.shape[0])
        known = None if valid is None else self.valid(valid, shape)
        if last_unused:
            known = torch.ones(shape, dtype=torch.bool, device=self.like.device) if known is None else known.clone()
            known[:, -1] = False
        seen = actions if known is None else torch.where(known[..., None].to(actions.device), actions, 0)
        self.action_values(seen, "actions", "mark what is missing by action_valid=False")
        return admit_actions(actions, known, shape, self.like)

    def any_actions(self, given: Array | None, batch: int) -> Float[Tensor, "B N A"] | None:
        """Actions of B clips of any length, whose numbers are for `action_values` to look at; None stays None."""
        if given is None:
            return None
        actions = as_batch(as_actions(given, "actions"), 2, self._one_clip)
        width = self.config.action_width
        if actions.ndim != 3 or (actions.shape[0], actions.shape[2]) != (batch, width):
            raise AimeError(
                f"actions have shape {list(actions.shape)}; expected [{batch}, steps, {width}] (batch, frames, action "
                "width): give one action a frame, of the width that the model was trained on"
            )
        return actions.to(self.like.dtype)

    def action_values(self, actions: Float[Tensor, "..."], name: str, missing: str = "") -> None:
        """Look at the numbers of some actions."""
        self._values.extremes(actions, values.judge_actions(name, actions, self.model.action_scale, missing))

    def clipped_actions(self, actions: Float[Tensor, "..."], name: str) -> None:
        """Look at the numbers of actions that are then clipped."""
        self._values.extremes(actions, values.judge_clipped_actions(name, actions, self.model.action_scale))

    def action(self, given: Array, batch: int, ignored: Bool[Tensor, " B"] | None = None) -> Float[Tensor, "B A"]:
        """One action of each of `batch` videos; where it is ignored it may be anything, and is 0."""
        action, width = as_actions(given, "action"), self.config.action_width
        if action.ndim == 1 and batch == 1:
            action = action[None]
        if action.shape != (batch, width):
            raise AimeError(
                f"action has shape {list(action.shape)}; expected [{batch}, {width}] (batch, action width): give each "
                "video one action, of the width that the model was trained on"
            )
        if ignored is not None:
            action = torch.where(ignored[:, None].to(action.device), 0, action)
        self.action_values(action, "action")
        return action.to(self.like)

    def valid(self, given: Array, shape: torch.Size, name: str = "action_valid") -> Bool[Tensor, "*N"]:
        """A mask of truth values."""
        mask = as_tensor(given, name)
        if self._one_clip and mask.ndim == len(shape) - 1:
            mask = mask[None]
        if mask.dtype != torch.bool or mask.shape != shape:
            raise AimeError(
                f"{name} is {dtype_name(mask)} of shape {list(mask.shape)}; expected bool of shape {list(shape)}: give "
                "one truth value a frame"
            )
        return mask.to(self.like.device)

    def states(self, given: Array | None, shape: torch.Size) -> Float[Tensor, "*N S"] | None:
        """States `[*shape,S]`, in the model's type; None where none are given, or the model observes none."""
        if given is None or not self.config.state.width:
            return None
        states = as_tensor(given, "states")
        if not states.is_floating_point():
            raise AimeError(f"states are {dtype_name(states)}; expected floats: convert them")
        states = as_batch(states, len(shape), self._one_clip or shape[0] == 1)
        admitted = admit_states(states, shape, self.config, states)
        known = torch.where(states.isnan(), 0, states)
        self._values.extremes(known, values.judge_states("states", states))
        return None if admitted is None else admitted.to(self.like)

    def latents(self, given: Array, attention: Array) -> tuple[Float[Tensor, "N latent"], Float[Tensor, "N h w"]]:
        """Latents to decode, and the maps to decode them with."""
        latents, maps = as_tensor(given, "latents"), as_tensor(attention, "attention")
        grid = self.config.attention_grid
        expected = (latents.shape[0] if latents.ndim else 0, grid, grid)
        if latents.ndim != 2 or latents.shape[1] != self.config.latent or maps.shape != expected:
            raise AimeError(
                f"latents have shape {list(latents.shape)} and attention {list(maps.shape)}; expected [N, "
                f"{self.config.latent}] and [N, {grid}, {grid}]: flatten batch and time"
            )
        for name, each in (("latents", latents), ("attention", maps)):
            self._values.extremes(each, values.judge_finite(name, each, "see what made them"))
        return latents.to(self.like), maps.to(self.like)

    def believed(self, state: BeliefState, fresh: Bool[Tensor, " B"]) -> None:
        """The latents, contexts and beliefs of a state, but for rows that begin again."""
        dream = torch.cat([state.carry.belief, state.carry.latent, state.carry.context], dim=-1)
        dream = torch.where(fresh[:, None], 0, dream)
        remedy = "an earlier frame or action was wrong: begin again by reset, or by initial_state()"
        self._values.extremes(dream, values.judge_finite("the state's latents and beliefs", dream, remedy))

    def rewarding(self, because: str) -> Control:
        """The heads of a model whose reward head has seen rewards; refuses any other, and begins by `because`."""
        control = self.model.dynamics.expect_control(because)

        def judge(extremes: Any) -> None:
            if not extremes[1]:
                raise AimeError(because + NO_REWARDS)

        self._values.extremes(control.knows_rewards().to(self.like.dtype), judge)
        return control

    def seen(self, fresh: Bool[Tensor, " B"]) -> None:
        """Refuses a state that has seen no frame."""

        def judge(extremes: Any) -> None:
            if extremes[1]:
                raise AimeError("imagine() on a state that has seen no frame; expected one: call observe() first")

        self._values.extremes(fresh.to(self.like.dtype), judge)
