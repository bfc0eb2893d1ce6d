"""Rolling the belief forward without frames: vectors only, no convolution and no Perceiver."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from aime.errors import AimeError
from aime.primitives.autocast import fp32_to_learn
from aime.primitives.distributions import GaussianMixture, Pickable, drawn_from, mode_of, sample_of
from aime.representation.prior import DirichletProcessMixture
from aime.world_model import input_validation
from aime.world_model.input_validation import Array
from aime.world_model.noise import Seeds, seeded_uniforms
from aime.world_model.outputs import Dream, DreamState, FuturePrediction, SequenceOutput, Track
from aime.world_model.replaying import replayed

if TYPE_CHECKING:
    from aime.world_model.model import AIME

DECODED_AT_ONCE = 256
"""Frames that a prediction decodes in one call, which bounds its memory."""


class Choice(NamedTuple):
    """The latent that a path through imagination takes, and the component it came from."""

    latent: Float[Tensor, "N latent"]
    component: Int[Tensor, " N"]


Chooser = Callable[[GaussianMixture, int], Choice]
"""Takes the prior of a step and the step's number from 0, gives the latent to go on with."""
Picker = Callable[[Pickable, int], Choice]
"""A chooser that is content with the weights and one component."""
Act = Callable[[DreamState, int], Float[Tensor, "N A"]]
"""Takes the state of a step and the step's number from 0, gives the actions there, in [-1, 1]."""


def state_at(model: AIME, track: Track, times: int | Int[Tensor, " S"]) -> DreamState:
    """The state to imagine from after one frame of a track, `[B,·]`, or after each of several, `[B,S,·]`."""
    cells = model.dynamics.cells(track.latents, track.steps, track.belief_contexts, track.actions, track.beliefs)
    fields = (track.beliefs, cells, track.latents, track.steps, track.belief_contexts)
    return DreamState(*(field[:, times] for field in fields))


def likeliest(mixture: Pickable, number: int) -> Choice:
    """The heaviest component's mean: the mixture's own mean lies between its modes."""
    return Choice(*mode_of(mixture))


def sampled(mixture: Pickable, number: int) -> Choice:
    """A sample of the mixture, from torch's global generator."""
    return Choice(*sample_of(mixture))


def step(
    model: AIME, state: DreamState, action: Float[Tensor, "N A"], choose: Chooser, number: int = 0
) -> tuple[DreamState, DirichletProcessMixture, Choice]:
    """Advance by (z, c, a) and take the next z from the prior: the state then, that prior, and what was chosen."""
    with fp32_to_learn(state.latent):
        belief, cell = model.advance(state, action)
        prior = model.believe(belief, state.latent, state.step)
        choice = choose(prior.mixture, number)
        return model.arrive(belief, cell, choice.latent, state.latent), prior, choice


def rollout(model: AIME, start: DreamState, actions: Float[Tensor, "N F A"], choose: Picker) -> Dream:
    """Imagine F steps from N states under given actions; see `behave`.

    On a GPU it is recorded and replayed: see `replayed`.
    """
    if choose in (likeliest, sampled):
        return replayed(_rollout, model, (start, actions), choose)
    return _rollout(model, (start, actions), choose)


def _rollout(model: AIME, given: tuple[DreamState, Float[Tensor, "N F A"]], choose: Picker) -> Dream:
    start, actions = given
    return behave(model, start, lambda _, number: actions[:, number], actions.shape[1], choose)


def behave(model: AIME, start: DreamState, act: Act, count: int, choose: Picker) -> Dream:
    """Imagine `count` steps from N states, doing what `act` says; step f of the result is the arrival after action f.

    The numbers are those of F calls of `step`, with less work: the weights are laid out once, and of each prior's
    components one alone is computed.
    """
    state = start
    steps: list[tuple[Tensor, ...]] = []
    with fp32_to_learn(start.latent):
        dynamics, foresee = model.dynamics.joined(), model.prior.foresight()
        for number in range(count):
            latent, action = state.latent, act(state, number)
            belief, cell = dynamics.step(latent, state.step, state.context, action, state.belief, state.cell)
            outlook = foresee(belief, latent, state.step, model.expect_context(belief))
            choice = choose(outlook, number)
            state = model.arrive(belief, cell, choice.latent, latent)
            steps.append((state.latent, belief, outlook.log_weights, choice.component, action))
    return Dream(*(torch.stack(field, dim=1) for field in zip(*steps, strict=True)))


def random_spans(batch: int, length: int, share: float, device: torch.device) -> Bool[Tensor, "B T"]:
    """True on one random span in a `share` of the rows; spans start anywhere and last 1..length frames."""
    time = torch.arange(length, device=device)
    start = torch.randint(length, (batch, 1), device=device)
    stop = start + 1 + torch.randint(length, (batch, 1), device=device)
    return (torch.rand(batch, 1, device=device) < share) & (time >= start) & (time < stop)


def predict_future(
    model: AIME,
    context_frames: Array,
    actions: Array | None,
    samples: int | None,
    seed: Seeds,
    horizon: int | None,
    states: Array | None = None,
) -> FuturePrediction:
    """See `AIME.predict_future`."""
    if samples is not None and samples < 1:
        raise AimeError(f"samples is {samples}; expected 1 or more, or None for the single most likely future")
    with input_validation.Admission(model) as admit:
        frames = admit.frames(context_frames, "context_frames")
        batch, seen = frames.shape[:2]
        given = admit.any_actions(actions, batch)
        known = _known_future(model, seen, given, horizon)
        if given is not None:
            # nothing reads an action after the last predicted frame
            admit.action_values(given[:, : seen - 1 + known.shape[1]], "actions")
        past = _known_past(frames, given)
        output = model.run_sequence(frames, *past, admit.states(states, frames.shape[:2]))
        return _predict(model, output, known, known.shape[1] if horizon is None else horizon, samples, seed)


def _predict(
    model: AIME, output: SequenceOutput, known: Float[Tensor, "B F A"], steps: int, samples: int | None, seed: Seeds
) -> FuturePrediction:
    """Go on from the last frame of a pass, under the known actions and then the action schema's."""
    state = state_at(model, output.track, -1)
    count = samples or 1
    start = state.repeated(count)
    future = repeat(known.to(model.null_action), "b f a -> (b s) f a", s=count)
    noise = None if samples is None else _future_noise(model, seed, (output.latents.shape[0], samples, steps))

    def act(state: DreamState, number: int) -> Tensor:
        if number < future.shape[1]:
            return future[:, number]
        assert model.control is not None, "checked with the actions"
        behaviour = model.control.action_schema(state.belief, state.latent, state.step)
        return (behaviour.mode if noise is None else behaviour.drawn_from(noise.actions[:, number])).to(state.latent)

    def draw(mixture: Pickable, number: int) -> Choice:
        return likeliest(mixture, number) if noise is None else Choice(*drawn_from(mixture, noise.latents[:, number]))

    dream = behave(model, start, act, steps, draw)
    last_map = repeat(output.attention.bottom_up[:, -1], "b h w -> (b s) h w", s=count)
    attention = model.attention.roll(dream.beliefs, dream.latents, last_map)
    frames = decode_in_chunks(model, dream.latents.flatten(0, 1), attention.flatten(0, 1))
    predicted = model.second_observation.predict(dream.beliefs, dream.latents, dream.steps(start))
    shape = (output.latents.shape[0], *([] if samples is None else [samples]), steps)
    return FuturePrediction(
        frames=frames.unflatten(0, shape),
        latents=dream.latents.reshape(*shape, -1),
        mixture_weights=dream.log_weights.exp().reshape(*shape, -1),
        components=dream.components.reshape(shape),
        attention=attention.reshape(*shape, *attention.shape[-2:]),
        actions=dream.actions.reshape(*shape, -1),
        states=None if predicted is None else predicted.reshape(*shape, -1),
    )


class _FutureNoise(NamedTuple):
    """Uniform numbers that N futures are drawn by."""

    latents: Float[Tensor, "N F latents"]
    actions: Float[Tensor, "N F actions"]


def _future_noise(model: AIME, seed: Seeds, shape: tuple[int, int, int]) -> _FutureNoise:
    """Of B clips, S samples of each and F steps, `[B·S,F,·]`."""
    sizes = [model.prior.noise_width, 0]
    if model.control is not None:
        sizes[1] = model.control.action_schema.next_action.noise_width
    noise = seeded_uniforms(seed, (*shape, sum(sizes)), "future", model.device)
    return _FutureNoise(*rearrange(noise, "b s f width -> (b s) f width").split(sizes, dim=-1))


def _known_future(model: AIME, seen: int, actions: Tensor | None, horizon: int | None) -> Float[Tensor, "B F A"]:
    """The actions from the last seen frame on that are given; what is missing, the action schema will do."""
    if horizon is None:
        if actions is None or actions.shape[1] <= seen:
            found = "None" if actions is None else f"of shape {list(actions.shape)}"
            raise AimeError(
                f"actions are {found}; expected [B, context + horizon, A] with more than {seen} steps: give an action "
                "for every frame, the context's included, or a horizon to let the model act"
            )
        return actions[:, seen - 1 : -1]
    if horizon < 1:
        raise AimeError(f"horizon is {horizon}; expected 1 or more frames")
    nothing = model.null_action.new_zeros(1, 0, model.config.action_width)
    known = nothing if actions is None else actions[:, seen - 1 : seen - 1 + horizon]
    if known.shape[1] < horizon and model.control is None:
        raise AimeError(
            f"horizon is {horizon} with {known.shape[1]} actions given, and the model has no action schema "
            "(model.control.kind is none); expected an action for every step: give them"
        )
    return known


def _known_past(
    frames: Float[Tensor, "B C 3 H W"], actions: Float[Tensor, "B CF A"] | None
) -> tuple[Float[Tensor, "B C A"] | None, Bool[Tensor, "B C"] | None]:
    """The actions between the seen frames, and where they are known: the last one is not the past's."""
    if actions is None:
        return None, None
    seen = frames.shape[1]
    past = actions[:, :seen]
    missing = seen - past.shape[1]
    valid = torch.ones(past.shape[0], seen, dtype=torch.bool, device=past.device)
    valid[:, seen - missing :] = False
    return F.pad(past, (0, 0, 0, missing)), valid


def decode_in_chunks(
    model: AIME, latents: Float[Tensor, "N latent"], attention: Float[Tensor, "N h w"]
) -> Float[Tensor, "N 3 H W"]:
    """Decode any number of latents in bounded memory."""
    chunks = zip(latents.split(DECODED_AT_ONCE), attention.split(DECODED_AT_ONCE), strict=True)
    return torch.cat([model.draw(latent, maps) for latent, maps in chunks])
