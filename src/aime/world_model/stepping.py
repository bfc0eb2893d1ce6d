"""Observing a video frame by frame, and imagining without frames, with carried state."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils._pytree import tree_map

from aime.attention.top_down import TopDown
from aime.dynamics.choices import likeliest, sampled
from aime.dynamics.states import Carry
from aime.primitives.recorded_calls import replayed
from aime.world_model.admission import Admission
from aime.world_model.core import WorldModel
from aime.world_model.input_validation import Array
from aime.world_model.outputs import BeliefState, Imagined, Observation


@torch.no_grad()
def initial_state(model: WorldModel, batch: int) -> BeliefState:
    """See `AIME.initial_state`."""
    like, size = model.null_action, model.config.image_size
    # the past before the first frame is zero; one blank pass tells the shapes
    _, kept = model.tokenizer(like.new_zeros(batch, 1, 3, size, size))
    return BeliefState(
        carry=model.dynamics.start(batch),
        last_map=model.attention.initial_map(batch),
        fresh=torch.ones(batch, dtype=torch.bool, device=like.device),
        tokenizer_past=tuple(torch.zeros_like(past) for past in kept),
        perceiver_cache=model.perceiver.empty_cache(batch, like.detach()),
    )


def observe(
    model: WorldModel,
    state: BeliefState,
    frame: Array,
    previous_action: Array,
    reset: Array | None,
    own_state: Array | None = None,
) -> tuple[BeliefState, Observation]:
    """See `AIME.observe`."""
    batch = state.fresh.shape[0]
    with Admission(model) as admit:
        frames = admit.frame(frame, batch)
        fresh = state.fresh if reset is None else state.fresh | admit.valid(reset, state.fresh.shape, "reset")
        admit.believed(state, fresh)
        action = admit.action(previous_action, batch, ignored=fresh)
        states = admit.states(own_state, state.fresh.shape)
        return replayed(_observe, model, _Seen(state._replace(fresh=fresh), frames, action, states), None)


class _Seen(NamedTuple):
    """What there is to observe, admitted."""

    state: BeliefState
    frames: Float[Tensor, "B 1 3 H W"]
    action: Float[Tensor, "B A"]
    own_state: Float[Tensor, "B S"] | None


def _observe(model: WorldModel, given: _Seen, _: None) -> tuple[BeliefState, Observation]:
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


def imagine(model: WorldModel, state: BeliefState, action: Array, sample: bool) -> tuple[BeliefState, Imagined]:
    """See `AIME.imagine`."""
    with Admission(model) as admit:
        admit.seen(state.fresh)
        admit.believed(state, state.fresh)
        given = state.carry, state.last_map, admit.action(action, state.fresh.shape[0])
        carry, imagined = replayed(_imagine, model, given, sample)
        return state._replace(carry=carry, last_map=imagined.expected.map), imagined


def _imagine(
    model: WorldModel, given: tuple[Carry, Float[Tensor, "B h w"], Float[Tensor, "B A"]], sample: bool
) -> tuple[Carry, Imagined]:
    before, last_map, action = given
    carry, prior, choice = model.dynamics.step(before, action, sampled if sample else likeliest)
    expected = model.attention.expect(carry.belief, carry.latent, last_map)
    predicted = model.dynamics.predict_state(*carry.read)
    return carry, Imagined(choice.latent, choice.component, prior, expected, predicted)
