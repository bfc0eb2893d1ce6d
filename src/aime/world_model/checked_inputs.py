"""Frames, actions and states that enter the public API: shapes, types and ranges are checked, and all is converted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aime.data.value_checks import FINITE, FRAMES, STATES, ValueChecks, allowed_actions, clipped_actions
from aime.dynamics.heads.control import Control
from aime.dynamics.latent_dynamics import NO_REWARDS
from aime.errors import AimeError
from aime.primitives.arrays import Array, as_floats, as_tensor, dtype_name, expect_shape
from aime.world_model.core import WorldModel
from aime.world_model.input_validation import (
    ACTIONS_REMEDY,
    admit_actions,
    admit_frames,
    admit_states,
    as_actions,
)
from aime.world_model.outputs import BeliefState


class CheckedInputs(ValueChecks):
    """What enters one call of the public API, checked and converted to the model's device and type.

    A context manager around the call: on a GPU the numbers are checked at its end, see `ValueChecks`. Where frames come
    without an axis for the batch, all else may come without it, too.
    """

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model, self.config, self.like = model, model.config, model.null_action
        self._one_clip = False

    def __enter__(self) -> CheckedInputs:
        return self

    def frames(self, given: Array, name: str = "frames") -> Float[Tensor, "B T 3 H W"]:
        """Frames of any layout that `AIME.prepare` takes."""
        self._one_clip = getattr(given, "ndim", 0) < 5
        given = as_tensor(given, name)
        if not given.is_floating_point():
            return admit_frames(given, self.config, self.like, name)
        # values on the host are checked before they are copied to a GPU
        frames = admit_frames(given, self.config, self.like if self.like.device == given.device else given, name)
        self.check_range(frames.permute(0, 1, 3, 4, 2), FRAMES.check(name, frames))
        return frames.to(self.like)

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
        return self.frames(frame[:, None], "frame")

    def _batched(self, given: Tensor, axes: int) -> Tensor:
        return given[None] if self._one_clip and given.ndim == axes - 1 else given

    def actions(
        self, given: Array | None, shape: torch.Size, valid: Array | None = None, last_unused: bool = False
    ) -> Float[Tensor, "B T A"]:
        """Actions of B clips of T frames, with the null action where they are missing."""
        if given is None:
            return admit_actions(None, None, shape, self.like)
        actions = self._batched(as_actions(given, "actions"), 3)
        expect_shape(actions, (*shape, len(self.like)), "actions", ACTIONS_REMEDY)
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
        actions = self._batched(as_actions(given, "actions"), 3)
        expect_shape(actions, (batch, "steps", len(self.like)), "actions", ACTIONS_REMEDY)
        return actions.to(self.like.dtype)

    def action_values(self, actions: Float[Tensor, "..."], name: str, remedy: str = "see what made them") -> None:
        """Look at the numbers of some actions."""
        self.check_range(actions, allowed_actions(self.model.action_scale, remedy).check(name, actions))

    def clipped_actions(self, actions: Float[Tensor, "..."], name: str) -> None:
        """Look at the numbers of actions that are then clipped."""
        self.check_range(actions, clipped_actions(self.model.action_scale).check(name, actions))

    def action(self, given: Array, batch: int, ignored: Bool[Tensor, " B"] | None = None) -> Float[Tensor, "B A"]:
        """One action of each of `batch` videos; where it is ignored it may be anything, and is 0."""
        action = as_actions(given, "action")
        if action.ndim == 1 and batch == 1:
            action = action[None]
        expect_shape(action, (batch, len(self.like)), "action", ACTIONS_REMEDY)
        if ignored is not None:
            action = torch.where(ignored[:, None].to(action.device), 0, action)
        self.action_values(action, "action")
        return action.to(self.like)

    def valid(self, given: Array, shape: torch.Size, name: str = "action_valid") -> Bool[Tensor, "*N"]:
        """A mask of truth values."""
        mask = self._batched(as_tensor(given, name), len(shape))
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
        states = as_floats(given, "states")
        states = states[None] if shape[0] == 1 and states.ndim == len(shape) else self._batched(states, len(shape) + 1)
        admitted = admit_states(states, shape, self.config, states)
        known = torch.where(states.isnan(), 0, states)
        self.check_range(known, STATES.check("states", known))
        return None if admitted is None else admitted.to(self.like)

    def latents(self, given: Array, attention: Array) -> tuple[Float[Tensor, "N latent"], Float[Tensor, "N h w"]]:
        """Latents to decode, and the maps to decode them with."""
        latents, maps, grid = as_tensor(given, "latents"), as_tensor(attention, "attention"), self.config.attention_grid
        expect_shape(latents, ("N", self.config.latent), "latents", "flatten batch and time")
        expect_shape(maps, (len(latents), grid, grid), "attention", "flatten batch and time")
        for name, each in (("latents", latents), ("attention", maps)):
            self.check_range(each, FINITE.check(name, each))
        return latents.to(self.like), maps.to(self.like)

    def believed(self, state: BeliefState, fresh: Bool[Tensor, " B"]) -> None:
        """The latents, contexts and beliefs of a state, but for rows that begin again."""
        dream = torch.cat([state.carry.belief, state.carry.latent, state.carry.context], dim=-1)
        dream = torch.where(fresh[:, None], 0, dream)
        allowed = FINITE._replace(
            remedy="an earlier frame or action was wrong: begin again by reset, or by initial_state()"
        )
        self.check_range(dream, allowed.check("the state's latents and beliefs", dream))

    def rewarding(self, because: str) -> Control:
        """The heads of a model whose reward head has seen rewards; refuses any other, and begins by `because`."""
        control = self.model.dynamics.expect_control(because)
        self._expect_zero(~control.knows_rewards(), because + NO_REWARDS)
        return control

    def seen(self, fresh: Bool[Tensor, " B"]) -> None:
        """Refuses a state that has seen no frame."""
        self._expect_zero(fresh, "imagine() on a state that has seen no frame; expected one: call observe() first")

    def _expect_zero(self, wrong: Bool[Tensor, "..."], message: str) -> None:
        def check(extremes: Sequence[float]) -> None:
            if extremes[1]:
                raise AimeError(message)

        self.check_range(wrong.to(self.like.dtype), check)
