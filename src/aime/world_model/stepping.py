"""Watching a video frame by frame with carried state: the same numbers as the parallel pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from einops import repeat
from jaxtyping import Bool, Float
from torch import Tensor

from aime.perception.tokenizer import Tokenizer
from aime.world_model import imagination, input_validation
from aime.world_model.outputs import BeliefState, DreamState, Imagined, Observation, Track
from aime.world_model.replaying import replayed

if TYPE_CHECKING:
    from aime.world_model.model import AIME


def initial_state(model: AIME, batch: int) -> BeliefState:
    """See `AIME.initial_state`."""
    like = model.null_action
    belief, cell = model.dynamics.initial(batch)
    dream = DreamState(
        belief.detach(),
        cell.detach(),
        repeat(model.initial_latent.detach(), "d -> b d", b=batch),
        like.new_zeros(batch, model.config.latent),
        like.new_zeros(batch, model.config.context_width),
    )
    return BeliefState(
        dream=dream,
        last_map=model.attention.initial_map(batch).detach(),
        fresh=torch.ones(batch, dtype=torch.bool, device=like.device),
        tokenizer_past=_empty_past(model.tokenizer, batch, model.config.image_size, like.detach()),
        perceiver_cache=model.perceiver.empty_cache(batch, like.detach()),
    )


@torch.no_grad()
def _empty_past(tokenizer: Tokenizer, batch: int, size: int, like: Tensor) -> tuple[Tensor, ...]:
    # the past before the first frame is zero; one blank pass tells the shapes
    _, kept = tokenizer(like.new_zeros(batch, 1, 3, size, size))
    return tuple(torch.zeros_like(past) for past in kept)


def watch(
    model: AIME,
    frames: Tensor,
    actions: Tensor | None,
    action_valid: Bool[Tensor, "B T"] | None = None,
    states: Float[Tensor, "B T S"] | None = None,
) -> tuple[Track, Float[Tensor, "B T h w"]]:
    """The latents, beliefs and bottom-up maps of `AIME.forward_sequence`, without its frames and prior maps.

    For data that is known to be in range: it looks at shapes, not at numbers.

    Raises:
        AimeError: if frames, actions or states do not have the model's shape.
    """
    centred = model.centre(frames)
    actions = input_validation.admit_actions(actions, action_valid, centred.shape[:2], model.null_action)
    sight = model.perceive(centred, states)
    posterior = model.infer(sight)
    latents = posterior.rsample() if model.training else posterior.mean
    track = model.follow(latents, sight.percept.contexts, actions)
    return track, sight.seen.map.unflatten(0, centred.shape[:2])


def observe(
    model: AIME,
    state: BeliefState,
    frame: input_validation.Array,
    previous_action: input_validation.Array,
    reset: input_validation.Array | None,
    own_state: input_validation.Array | None = None,
) -> tuple[BeliefState, Observation]:
    """See `AIME.observe`."""
    batch = state.fresh.shape[0]
    with input_validation.Admission(model) as admit:
        centred = model.centre(admit.frame(frame, batch))
        fresh = state.fresh if reset is None else state.fresh | admit.valid(reset, state.fresh.shape, "reset")
        admit.believed(state, fresh)
        action = admit.action(previous_action, batch, ignored=fresh)
        states = admit.states(own_state, state.fresh.shape)
        return replayed(_observe, model, _Seen(state._replace(fresh=fresh), centred, action, states), None)


class _Seen(NamedTuple):
    """What there is to observe, admitted."""

    state: BeliefState
    centred: Float[Tensor, "B 1 3 H W"]
    action: Float[Tensor, "B A"]
    own_state: Float[Tensor, "B S"] | None


def _observe(model: AIME, given: _Seen, _: None) -> tuple[BeliefState, Observation]:
    state, centred, action, own_state = given
    fresh = state.fresh
    belief, cell = _advance_unless(fresh, model, state, action)
    row, before = fresh[:, None], state.dream
    tokens, past = model.tokenizer(centred, _forget_past(state.tokenizer_past, fresh))
    cache = state.perceiver_cache
    cache = cache._replace(filled=cache.filled & ~fresh[:, None])
    pyramid = model.encoder.pyramid(centred[:, 0])
    seen = model.attention.look(pyramid)
    context, cache = model.perceiver.step(tokens.codes[:, 0], seen.map, cache)
    context = model.second_observation.add(context, own_state)
    posterior = model.encoder(pyramid, context)
    last_map = torch.where(row[..., None], model.attention.initial_map(fresh.shape[0]), state.last_map)
    expected = model.attention.expect(belief, posterior.mean, last_map)
    attention = model.attention.fuse(seen.map, expected.map, belief)
    prior = model.believe(
        belief, torch.where(row, model.initial_latent, before.latent), before.step.masked_fill(row, 0)
    )
    step = (posterior.mean - before.latent).masked_fill(row, 0)
    dream = DreamState(belief, cell, posterior.mean, step, context.to(belief.dtype))
    next_state = BeliefState(dream, seen.map, torch.zeros_like(fresh), past, cache)
    predicted = model.second_observation.predict(belief, posterior.mean, step)
    return next_state, Observation(
        posterior.mean, posterior, prior, dream.context, tokens.indices[:, 0], attention, seen, expected, predicted
    )


def imagine(
    model: AIME, state: BeliefState, action: input_validation.Array, sample: bool
) -> tuple[BeliefState, Imagined]:
    """See `AIME.imagine`."""
    with input_validation.Admission(model) as admit:
        admit.seen(state.fresh)
        admit.believed(state, state.fresh)
        given = state.dream, state.last_map, admit.action(action, state.fresh.shape[0])
        dream, imagined = replayed(_imagine, model, given, sample)
        return state._replace(dream=dream, last_map=imagined.expected.map), imagined


def _imagine(
    model: AIME, given: tuple[DreamState, Float[Tensor, "B h w"], Float[Tensor, "B A"]], sample: bool
) -> tuple[DreamState, Imagined]:
    before, last_map, action = given
    dream, prior, choice = imagination.step(
        model, before, action, imagination.sampled if sample else imagination.likeliest
    )
    expected = model.attention.expect(dream.belief, dream.latent, last_map)
    predicted = model.second_observation.predict(dream.belief, dream.latent, dream.step)
    return dream, Imagined(choice.latent, choice.component, prior, expected, predicted)


def _advance_unless(
    fresh: Bool[Tensor, " B"], model: AIME, state: BeliefState, action: Float[Tensor, "B A"]
) -> tuple[Float[Tensor, "B belief"], Float[Tensor, "B belief"]]:
    belief, cell = model.advance(state.dream, action)
    first_belief, first_cell = model.dynamics.initial(fresh.shape[0])
    row = fresh[:, None]
    return torch.where(row, first_belief, belief), torch.where(row, first_cell, cell)


def _forget_past(past: tuple[Tensor, ...], fresh: Bool[Tensor, " B"]) -> tuple[Tensor, ...]:
    # a past of P frames holds them time-major, [P·B,C,H,W]; not by a product with 0, which keeps what is not finite
    return tuple(
        each.masked_fill(fresh.repeat(each.shape[0] // fresh.shape[0])[:, None, None, None], 0) for each in past
    )
