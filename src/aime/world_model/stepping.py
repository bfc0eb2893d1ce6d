"""Observing a video frame by frame, and imagining without frames, with carried state."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.utils._pytree import tree_map

from aime.attention.top_down import TopDown
from aime.dynamics.choices import likeliest, sampled
from aime.dynamics.states import Carry
from aime.primitives.graphed_calls import call_graphed
from aime.world_model.checked_inputs import CheckedInputs
from aime.world_model.core import WorldModel
from aime.world_model.outputs import BeliefState, Imagined, Observation


class Stepping(WorldModel):
    """A world model that follows videos frame by frame, and imagines without frames."""

    @torch.no_grad()
    def initial_state(self, batch: int) -> BeliefState:
        """The state of `batch` videos before their first frame."""
        like, size = self.null_action, self.config.image_size
        # the past before the first frame is zero, of the shapes that one blank pass has
        _, kept = self.tokenizer(like.new_zeros(batch, 1, 3, size, size))
        return BeliefState(
            carry=self.dynamics.start(batch),
            last_map=self.attention.initial_map(batch),
            fresh=torch.ones(batch, dtype=torch.bool, device=like.device),
            tokenizer_past=tuple(torch.zeros_like(past) for past in kept),
            perceiver_cache=self.perceiver.empty_cache(batch, like.detach()),
        )

    @torch.no_grad()
    def observe(
        self,
        state: BeliefState,
        frame: UInt8[Tensor, "B 3 H W"] | Float[Tensor, "B 3 H W"] | UInt8[np.ndarray, "B H W 3"],
        previous_action: Float[Tensor, "B A"] | Float[np.ndarray, "B A"],
        reset: Bool[Tensor, " B"] | Bool[np.ndarray, " B"] | None = None,
        own_state: Float[Tensor, "B S"] | Float[np.ndarray, "B S"] | None = None,
    ) -> tuple[BeliefState, Observation]:
        """Observe one more frame: advance the belief by the action before it, then infer.

        Gives the same numbers as `forward_sequence` in eval mode gives for that frame.

        Args:
            state: from `initial_state`, or from the step before.
            frame: `[B,3,H,W]`, uint8 or float in [0, 1].
            previous_action: `[B,A]` in [-1, 1], taken after the frame before; ignored in fresh rows.
            reset: True in the rows where this frame starts a new video.
            own_state: `[B,S]`, the robot's or simulator's state, NaN where not known; None where none is.

        Raises:
            AimeError: if frame, action or own state do not have the model's shape, type or range, or the state is not
                finite.
        """
        batch = state.fresh.shape[0]
        with CheckedInputs(self) as checked:
            frames = checked.frame(frame, batch)
            fresh = state.fresh if reset is None else state.fresh | checked.valid(reset, state.fresh.shape, "reset")
            checked.believed(state, fresh)
            action = checked.action(previous_action, batch, ignored=fresh)
            states = checked.states(own_state, state.fresh.shape)
            given = state._replace(fresh=fresh), frames, action, states
            return call_graphed(_observe, self, given, None)

    @torch.no_grad()
    def imagine(
        self, state: BeliefState, action: Float[Tensor, "B A"] | Float[np.ndarray, "B A"], sample: bool = False
    ) -> tuple[BeliefState, Imagined]:
        """Imagine one step: advance the belief by (z_t, c_t, action), then take z_{t+1} from the prior.

        Args:
            state: after `observe` or `imagine`.
            action: `[B,A]` in [-1, 1].
            sample: a sample of the prior instead of its heaviest component's mean.

        Raises:
            AimeError: if the action does not have the model's width, type or range, or a row has seen no frame yet, or
                the state is not finite.
        """
        with CheckedInputs(self) as checked:
            checked.seen(state.fresh)
            checked.believed(state, state.fresh)
            given = state.carry, state.last_map, checked.action(action, state.fresh.shape[0])
            carry, imagined = call_graphed(_imagine, self, given, sample)
            return state._replace(carry=carry, last_map=imagined.expected.map), imagined


Seen = tuple[BeliefState, Float[Tensor, "B 1 3 H W"], Float[Tensor, "B A"], Float[Tensor, "B S"] | None]
"""A state, the frames to observe from it, the actions that led to them, and the robots' own states."""


def _observe(model: WorldModel, given: Seen, _: None) -> tuple[BeliefState, Observation]:
    """A pass over one frame, from the state that the last action led to."""
    state, frames, action, own_state = given
    entering = _enter(model, state, action)
    states = None if own_state is None else own_state[:, None]
    # no belief of this pass reads the action after its only frame
    seen = model.filter_sequence(frames, torch.zeros_like(action)[:, None], states=states, entering=entering)
    sight, track = seen.sight, seen.track
    maps = model.attention(sight.seen, track.beliefs, track.latents, entering.last_map)
    carry = model.dynamics.states_at(track, 0)
    fresh = torch.zeros_like(state.fresh)
    assert sight.perceiver_cache is not None, "it was given one"
    after = BeliefState(carry, seen.maps[:, 0], fresh, sight.tokenizer_past, sight.perceiver_cache)
    posterior, prior = tree_map(lambda each: each[:, 0], (seen.posterior, track.prior))
    return after, Observation(
        latent=carry.latent,
        posterior=posterior,
        prior=prior,
        context=carry.context,
        tokens=sight.tokens.indices[:, 0],
        attention=maps.fused[:, 0],
        seen=sight.seen,
        expected=TopDown(maps.prior[:, 0], maps.motion[:, 0]),
        state=model.dynamics.predict_state(*carry.read),
    )


def _enter(model: WorldModel, state: BeliefState, action: Float[Tensor, "B A"]) -> BeliefState:
    """The state that enters the next frame: after the action, or before all frames where a video is fresh."""
    fresh, cache = state.fresh, state.perceiver_cache
    first_map = model.attention.initial_map(fresh.shape[0])
    return BeliefState(
        carry=model.dynamics.enter(state.carry, action, fresh),
        last_map=torch.where(fresh[:, None, None], first_map, state.last_map),
        fresh=fresh,
        tokenizer_past=_forget_past(state.tokenizer_past, fresh),
        perceiver_cache=cache._replace(filled=cache.filled & ~fresh[:, None]),
    )


def _forget_past(past: tuple[Tensor, ...], fresh: Bool[Tensor, " B"]) -> tuple[Tensor, ...]:
    # a past of P frames holds them time-major, [P·B,C,H,W]; not by a product with 0, which keeps what is not finite
    return tuple(
        each.masked_fill(fresh.repeat(each.shape[0] // fresh.shape[0])[:, None, None, None], 0) for each in past
    )


def _imagine(
    model: WorldModel, given: tuple[Carry, Float[Tensor, "B h w"], Float[Tensor, "B A"]], sample: bool
) -> tuple[Carry, Imagined]:
    before, last_map, action = given
    carry, prior, choice = model.dynamics.step(before, action, sampled if sample else likeliest)
    expected = model.attention.expect(carry.belief, carry.latent, last_map)
    predicted = model.dynamics.predict_state(*carry.read)
    return carry, Imagined(choice.latent, choice.component, prior, expected, predicted)
