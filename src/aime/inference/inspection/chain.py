"""The model's forward pass with one value replaced: clips are encoded once, and only what depends on it again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils._pytree import tree_map

from aime.attention.bottom_up import BottomUp
from aime.data import Clips
from aime.dynamics.choices import Choice
from aime.dynamics.states import Carry, Track
from aime.inference import metrics
from aime.inference.inspection.interventions import ALL, Intervention
from aime.inference.inspection.measures import Baselines, Kind, Scores
from aime.primitives.distributions import DiagonalGaussian, GaussianMixture, Pickable, from_uniforms
from aime.primitives.pixels import to_unit
from aime.primitives.seeded_noise import posterior_samples, seeded_uniforms
from aime.world_model.input_validation import admit_actions
from aime.world_model.model import AIME
from aime.world_model.prediction import decode_in_chunks

AT_ONCE = 8
"""Clips that are perceived, drawn or imagined at once, which bounds the memory."""


class Window(NamedTuple):
    """Which frames of a clip are seen, and which are predicted."""

    context: int
    """Frames that the model sees."""
    horizons: Sequence[int]
    """Frames ahead that are decoded, in rising order."""
    samples: int
    """Sampled futures of each clip."""


class Recording(NamedTuple):
    """B clips of T frames, and what a model perceives in them."""

    frames: UInt8[Tensor, "B T 3 H W"]
    seeds: Int[Tensor, " B"]
    """Of the clips' samples."""
    actions: Float[Tensor, "B T A"]
    """As the belief reads them: missing ones are the null action."""
    states: Float[Tensor, "B T S"] | None
    """In their own units, as recorded; None where there are none."""
    tokens: Int[Tensor, "B T h w"]
    seen: BottomUp
    """Slots and U_t; all fields are `[B,T,…]`."""
    features: Float[Tensor, "B T C h w"]
    """The coarsest level of the encoder's pyramid, the one that the posterior reads."""
    contexts: Float[Tensor, "B T context"]
    posterior: DiagonalGaussian

    @property
    def latents(self) -> Float[Tensor, "B T latent"]:
        """z_t: the posterior's means."""
        return self.posterior.mean


@torch.inference_mode()
def record(
    model: AIME, clips: Clips, seeds: Sequence[int], progress: Callable[[int], None] = lambda done: None
) -> Recording:
    """Perceive clips once, for any number of interventions.

    Args:
        model: in eval mode.
        clips: B clips of T steps without padding.
        seeds: one a clip; see `clip_seeds`.
        progress: is called with the number of clips that are done.
    """
    given = (clips.frames, torch.tensor(seeds), clips.actions, clips.action_valid, clips.states)

    def perceive(frames: Tensor, seed: Tensor, actions: Tensor, valid: Tensor, states: Tensor | None) -> Recording:
        shape = frames.shape[:2]
        sight = model.perceive(frames, states)
        return Recording(
            frames=frames,
            seeds=seed,
            actions=admit_actions(actions, valid, shape, model.null_action),
            states=states,
            tokens=sight.tokens.indices,
            seen=BottomUp(*(field.unflatten(0, shape) for field in sight.seen)),
            features=sight.pyramid[-1].unflatten(0, shape),
            contexts=sight.percept.contexts,
            posterior=model.infer(sight),
        )

    return _by_clips(perceive, *_on(model.device, given), progress=progress)


@torch.inference_mode()
def score(
    model: AIME,
    recording: Recording,
    window: Window,
    intervention: Intervention,
    measures: Collection[Kind] = ALL,
) -> Scores:
    """The scores of the clips with one value replaced.

    The noise of the samples is that of `AIME.predict_future` for the same seeds, whatever is replaced. The nats are
    those of the same samples of the unchanged posterior, so that only the prior changes.

    Args:
        model: in eval mode; the one that perceived the recording.
        recording: of B clips.
        window: what is predicted.
        intervention: the change; `INTACT` for none.
        measures: what is computed.

    Returns:
        The scores, on the CPU.
    """
    at = intervention.at
    contexts = _contexts(model, recording, intervention)
    read = at("posterior context", contexts)
    latents = recording.latents if read is recording.contexts else _infer(model, recording, read)
    believed, actions = at("belief context", contexts), at("actions", recording.actions)
    track = model.dynamics.scan(recording.latents, believed, actions)
    psnr, nats, mse = None, None, None
    if "nats" in measures:
        value = posterior_samples(recording.posterior, recording.seeds.tolist(), 1)[:, 0]
        log_prob = at("prior", track.prior.mixture).log_prob(value)
        nats = -log_prob[:, window.context :].mean(dim=1).cpu()
    if latents is not recording.latents:
        track = model.dynamics.scan(latents, believed, actions)
    seen = at("slots", recording.seen)
    if "reconstruction" in measures:
        psnr = _reconstruction(model, recording, track, seen, intervention).cpu()
    if "skill" in measures:
        mse = _future_errors(model, recording, window, track, seen, intervention).cpu()
    return Scores(psnr, nats, mse)


@torch.inference_mode()
def baselines(model: AIME, recording: Recording, window: Window) -> Baselines:
    """The errors of the last frame of the context, repeated, and of the training set's mean image; on the CPU."""
    truth = _truth(recording.frames, window)
    last = to_unit(recording.frames[:, window.context - 1])[:, None]
    return Baselines(*(metrics.frame_mse(each, truth).cpu() for each in (last, model.baseline_image)))


def _contexts(model: AIME, recording: Recording, intervention: Intervention) -> Float[Tensor, "B T context"]:
    """c_t, perceived again where the intervention replaces what the Perceiver reads."""

    def perceive(tokens: Tensor, maps: Tensor, states: Tensor | None) -> Tensor:
        codes = model.tokenizer.quantizer.lookup(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        return model.read_states(model.perceiver(codes, maps)[0].contexts, states)

    at, contexts = intervention.at, recording.contexts
    if intervention.place in ("tokens", "slots"):
        maps = at("slots", recording.seen).map
        contexts = _by_clips(perceive, at("tokens", recording.tokens), maps, recording.states)
    return at("context", contexts)


def _infer(model: AIME, recording: Recording, contexts: Float[Tensor, "B T context"]) -> Float[Tensor, "B T latent"]:
    """The posterior's means from other contexts."""

    def infer(features: Tensor, context: Tensor) -> Tensor:
        return model.encoder((features.flatten(0, 1),), context.flatten(0, 1)).mean.unflatten(0, context.shape[:2])

    return _by_clips(infer, recording.features, contexts)


def _reconstruction(
    model: AIME, recording: Recording, track: Track, seen: BottomUp, intervention: Intervention
) -> Float[Tensor, " B"]:
    """PSNR in dB of the frames drawn from their own latents, averaged over the frames of each clip."""

    def draw(frames: Tensor, latents: Tensor, beliefs: Tensor, seen: BottomUp) -> Tensor:
        attention = model.attention(BottomUp(*(field.flatten(0, 1) for field in seen)), beliefs, latents)
        maps = intervention.at("map", attention.shown)
        drawn = model.draw(latents.flatten(0, 1), maps.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return metrics.psnr(metrics.frame_mse(drawn, to_unit(frames))).mean(dim=1)

    return _by_clips(draw, recording.frames, track.latents, track.beliefs, seen)


def _future_errors(
    model: AIME, recording: Recording, window: Window, track: Track, seen: BottomUp, intervention: Intervention
) -> Float[Tensor, "B H"]:
    """Mean squared error, at each horizon, of the mean of the futures sampled after the context."""
    last, samples, steps = window.context - 1, window.samples, window.horizons[-1]
    drawn = torch.tensor(window.horizons, device=model.device) - 1

    def dream(truth: Tensor, seeds: Tensor, start: Carry, last_map: Tensor, actions: Tensor) -> Tensor:
        width = model.dynamics.prior.noise_width
        noise = seeded_uniforms(seeds.tolist(), (len(seeds), samples, steps, width), "future", model.device)
        noise = rearrange(noise, "b s f n -> (b s) f n")
        acts = repeat(actions, "b f a -> (b s) f a", s=samples)

        def choose(mixture: Pickable, number: int) -> Choice:
            if intervention.place == "prior":
                mixture = intervention.edit(_all_components(mixture))
            kinds, values = mixture.log_weights.shape[-1], model.config.latent
            uniforms = torch.cat([noise[:, number, :kinds], noise[:, number, -values:]], dim=-1)
            return Choice(*from_uniforms(mixture, uniforms))

        future = model.dynamics.behave(start.repeated(samples), lambda _, step: acts[:, step], steps, choose)
        maps = model.attention.roll(future.beliefs, future.latents, repeat(last_map, "b h w -> (b s) h w", s=samples))
        maps = intervention.at("map", maps[:, drawn])
        frames = decode_in_chunks(model, future.latents[:, drawn].flatten(0, 1), maps.flatten(0, 1))
        mean = rearrange(frames, "(b s h) c y x -> b s h c y x", s=samples, h=len(drawn)).mean(dim=1)
        return metrics.frame_mse(mean, truth)

    return _by_clips(
        dream,
        _truth(recording.frames, window),
        recording.seeds,
        model.dynamics.states_at(track, last),
        seen.map[:, last],
        track.actions[:, last : last + steps],
    )


def _all_components(mixture: Pickable) -> GaussianMixture:
    """The whole of a mixture whose components are computed when they are picked."""
    weights = mixture.log_weights
    number = torch.zeros(weights.shape[:-1], dtype=torch.long, device=weights.device)
    parts = [mixture.pick(number + component) for component in range(weights.shape[-1])]
    return GaussianMixture(
        weights, torch.stack([part.mean for part in parts], dim=-2), torch.stack([part.std for part in parts], dim=-2)
    )


def _truth(frames: UInt8[Tensor, "B T 3 H W"], window: Window) -> Float[Tensor, "B H 3 H W"]:
    """The true frames at the horizons."""
    return to_unit(frames[:, [window.context - 1 + ahead for ahead in window.horizons]])


def _on(device: torch.device, values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(None if each is None else each.to(device) for each in values)


def _by_clips(work: Callable[..., Any], *values: Any, progress: Callable[[int], None] = lambda done: None) -> Any:
    """`work(*values)` for a few clips at a time; values and result are trees of tensors whose first axis is clips."""
    count, parts = len(values[0]), []
    for start in range(0, count, AT_ONCE):
        parts.append(work(*_some(values, slice(start, start + AT_ONCE))))
        progress(min(start + AT_ONCE, count))
    return tree_map(lambda *each: None if each[0] is None else torch.cat(each), *parts)


def _some(values: Any, rows: slice) -> Any:
    return tree_map(lambda each: None if each is None else each[rows], values)
