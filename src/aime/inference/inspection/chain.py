"""The model's forward pass with one value replaced: clips are encoded once, and only what depends on it again."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils._pytree import tree_map

from aime.attention.bottom_up import BottomUp
from aime.attention.schema import Attention
from aime.data import Clips
from aime.dynamics.choices import Choice
from aime.dynamics.latent_dynamics import LatentDynamics
from aime.dynamics.states import Carry, Track
from aime.inference import metrics
from aime.inference.inspection.interventions import ALL, Intervention
from aime.inference.inspection.measures import Baselines, Kind, Scores, dream_horizon
from aime.inference.inspection.tokens import token_nats
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
    masks: UInt8[Tensor, "B T H W"] | None
    """Ids of instances, 0 the background; None where they are not known."""
    tokens: Int[Tensor, "B T h w"]
    token_nats: Float[Tensor, "B T"] | None
    """Of the tokens, read back from the Perceiver; None without one."""
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
    model: AIME,
    clips: Clips,
    seeds: Sequence[int],
    progress: Callable[[int], None] = lambda done: None,
    masks: UInt8[Tensor, "B T H W"] | None = None,
) -> Recording:
    """Perceive clips once, for any number of interventions.

    Args:
        model: in eval mode.
        clips: B clips of T steps without padding.
        seeds: one a clip; see `clip_seeds`.
        progress: is called with the number of clips that are done.
        masks: of the same clips, if they are known.
    """
    given = (clips.frames, torch.tensor(seeds), clips.actions, clips.action_valid, clips.states, masks)

    def perceive(
        frames: Tensor, seed: Tensor, actions: Tensor, valid: Tensor, states: Tensor | None, masks: Tensor | None
    ) -> Recording:
        shape = frames.shape[:2]
        sight = model.perceive(frames, states)
        return Recording(
            frames=frames,
            seeds=seed,
            actions=admit_actions(actions, valid, shape, model.null_action),
            states=states,
            masks=masks,
            tokens=sight.tokens.indices,
            token_nats=token_nats(model, sight),
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
    those of the same samples of the unchanged posterior, so that only the prior changes; those of the ELBO are of the
    changed posterior.

    Args:
        model: in eval mode; the one that perceived the recording.
        recording: of B clips.
        window: what is predicted.
        intervention: the change; `INTACT` for none.
        measures: what is computed; those of the body only where the recording has masks.

    Returns:
        The scores, on the CPU.
    """
    at = intervention.at
    contexts = _contexts(model, recording, intervention)
    read = at("posterior context", contexts)
    posterior = recording.posterior if read is recording.contexts else _infer(model, recording, read)
    believed, actions = at("belief context", contexts), at("actions", recording.actions)
    if intervention.place == "implied context":
        believed = intervention.edit(implied_contexts(model.dynamics, posterior.mean, actions))
    track = model.dynamics.scan(recording.latents, believed, actions)
    scores = Scores()
    if "nats" in measures:
        value = posterior_samples(recording.posterior, recording.seeds.tolist(), 1)[:, 0]
        log_prob = at("prior", track.prior.mixture).log_prob(value)
        scores = scores._replace(nats=-log_prob[:, window.context :].mean(dim=1).cpu())
    if posterior is not recording.posterior:
        track = model.dynamics.scan(posterior.mean, believed, actions)
    changed = Changed(posterior, track, at("slots", recording.seen))
    shown = at("map", at("attention", attention_of(model, changed)).shown)
    if "reconstruction" in measures:
        psnr = _reconstruction(model, recording, track.latents, shown)
        scores = scores._replace(reconstruction=psnr.frame, body=psnr.body)
    if "elbo" in measures:
        prior = at("prior", track.prior.mixture)
        scores = scores._replace(elbo=_negative_elbo(model, recording, window, changed, shown, prior).cpu())
    if "skill" in measures:
        mse, dream = _futures(model, recording, window, changed, intervention)
        scores = scores._replace(skill=mse, dream=dream.frame, body_dream=dream.body)
    return scores


class Changed(NamedTuple):
    """What depends on the replaced value, and is the same for all measures."""

    posterior: DiagonalGaussian
    track: Track
    """Of the posterior's means."""
    seen: BottomUp


class Decibels(NamedTuple):
    """PSNR in dB of B clips; NaN of the body where a clip's frames show none."""

    frame: Float[Tensor, " B"]
    body: Float[Tensor, " B"] | None
    """None without masks."""


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


def implied_contexts(
    dynamics: LatentDynamics, latents: Float[Tensor, "B T latent"], actions: Float[Tensor, "B T A"]
) -> Float[Tensor, "B T context"]:
    """c̃_t of beliefs that have read the implied context at every frame before, step by step."""
    start = dynamics.start(latents.shape[0])
    carry = start._replace(latent=latents[:, 0], context=dynamics.imply_context(start.belief, latents[:, 0]))
    implied = [carry.context]
    for latent, action in zip(latents[:, 1:].unbind(1), actions[:, :-1].unbind(1), strict=True):
        arrival = Choice(latent, torch.zeros_like(latent[:, 0], dtype=torch.long))
        carry = dynamics.step(carry, action, lambda _, __, arrival=arrival: arrival)[0]  # type: ignore[misc]
        implied.append(carry.context)
    return torch.stack(implied, dim=1)


def follow(model: AIME, recording: Recording) -> Changed:
    """What is computed of a recording with nothing replaced."""
    track = model.dynamics.scan(recording.latents, recording.contexts, recording.actions)
    return Changed(recording.posterior, track, recording.seen)


def attention_of(model: AIME, changed: Changed) -> Attention:
    """The maps of all frames, A_t as it is shown to the decoder."""

    def attend(beliefs: Tensor, latents: Tensor, seen: BottomUp) -> Attention:
        return model.attention(BottomUp(*(field.flatten(0, 1) for field in seen)), beliefs, latents)

    found: Attention = _by_clips(attend, changed.track.beliefs, changed.track.latents, changed.seen)
    return found


def _infer(model: AIME, recording: Recording, contexts: Float[Tensor, "B T context"]) -> DiagonalGaussian:
    """The posterior from other contexts."""

    def infer(features: Tensor, context: Tensor) -> DiagonalGaussian:
        found = model.encoder((features.flatten(0, 1),), context.flatten(0, 1))
        return found.unflatten(context.shape[0])

    found: DiagonalGaussian = _by_clips(infer, recording.features, contexts)
    return found


def _reconstruction(
    model: AIME, recording: Recording, latents: Float[Tensor, "B T latent"], shown: Float[Tensor, "B T h w"]
) -> Decibels:
    """PSNR of the frames drawn from their own latents, averaged over the frames of each clip."""

    def draw(frames: Tensor, masks: Tensor | None, latents: Tensor, maps: Tensor) -> Decibels:
        drawn = model.draw(latents.flatten(0, 1), maps.flatten(0, 1)).unflatten(0, frames.shape[:2])
        found = decibels(drawn, to_unit(frames), masks)
        return Decibels(found.frame.mean(dim=1), None if found.body is None else found.body.nanmean(dim=1))

    return _on_cpu(_by_clips(draw, recording.frames, recording.masks, latents, shown))


def _negative_elbo(
    model: AIME,
    recording: Recording,
    window: Window,
    changed: Changed,
    shown: Float[Tensor, "B T h w"],
    prior: GaussianMixture,
) -> Float[Tensor, " B"]:
    """-log p(x_t | z, A_t) + KL(q ‖ p) in nats, at a sample z of the posterior, over the frames after the context.

    The likelihood is N(x̂, σ²) of every pixel value, σ² the decoder's running variance. Beliefs are those of the
    posterior's means, as everywhere in eval mode. The entropy of q is exact, the rest is at the sample.
    """
    variance = model.decoder.variance
    sample = posterior_samples(changed.posterior, recording.seeds.tolist(), 1)[:, 0]

    def draw(frames: Tensor, latents: Tensor, maps: Tensor) -> Tensor:
        drawn = model.draw(latents.flatten(0, 1), maps.flatten(0, 1)).unflatten(0, frames.shape[:2])
        error = metrics.frame_mse(drawn, to_unit(frames)) / variance + torch.log(2 * math.pi * variance)
        return 0.5 * frames[0, 0].numel() * error

    later = slice(window.context, None)
    nats = _by_clips(draw, *(each[:, later] for each in (recording.frames, sample, shown)))
    divergence = -changed.posterior.entropy() - prior.log_prob(sample)
    return (nats + divergence[:, later]).mean(dim=1)


def _futures(
    model: AIME, recording: Recording, window: Window, changed: Changed, intervention: Intervention
) -> tuple[Float[Tensor, "B H"], Decibels]:
    """The mean of the futures sampled after the context: squared error at each horizon, and dB at one of them."""
    last, samples, steps = window.context - 1, window.samples, window.horizons[-1]
    drawn = torch.tensor(window.horizons, device=model.device) - 1
    judged = window.horizons.index(dream_horizon(window.horizons))

    def dream(
        truth: Tensor, masks: Tensor | None, seeds: Tensor, start: Carry, last_map: Tensor, actions: Tensor
    ) -> tuple[Tensor, Decibels]:
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
        found = decibels(mean[:, judged], truth[:, judged], None if masks is None else masks[:, judged])
        return metrics.frame_mse(mean, truth), found

    errors, found = _by_clips(
        dream,
        _truth(recording.frames, window),
        None if recording.masks is None else recording.masks[:, _predicted(window)],
        recording.seeds,
        model.dynamics.states_at(changed.track, last),
        changed.seen.map[:, last],
        changed.track.actions[:, last : last + steps],
    )
    return errors.cpu(), _on_cpu(found)


def decibels(
    drawn: Float[Tensor, "*N 3 H W"], truth: Float[Tensor, "*N 3 H W"], masks: UInt8[Tensor, "*N H W"] | None
) -> Decibels:
    """PSNR of each frame over all pixels, and over the body's; NaN where a frame shows no body."""
    squared = (drawn - truth).square().mean(dim=-3)
    whole = metrics.psnr(squared.mean(dim=(-2, -1)))
    if masks is None:
        return Decibels(whole, None)
    shown = masks > 0
    area = shown.sum(dim=(-2, -1))
    body = (squared * shown).sum(dim=(-2, -1)) / area.clamp_min(1)
    return Decibels(whole, torch.where(area > 0, metrics.psnr(body), torch.nan))


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
    return to_unit(frames[:, _predicted(window)])


def _predicted(window: Window) -> list[int]:
    """The numbers of the frames at the horizons."""
    return [window.context - 1 + ahead for ahead in window.horizons]


def _on_cpu(found: Decibels) -> Decibels:
    return Decibels(found.frame.cpu(), None if found.body is None else found.body.cpu())


def _on(device: torch.device, values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(None if each is None else each.to(device) for each in values)


def _by_clips(work: Callable[..., Any], *values: Any, progress: Callable[[int], None] = lambda done: None) -> Any:
    """`work(*values)` for a few clips at a time; values and result are trees of tensors whose first axis is clips.

    The first value is a tensor.
    """
    count, parts = len(values[0]), []
    for start in range(0, count, AT_ONCE):
        parts.append(work(*_some(values, slice(start, start + AT_ONCE))))
        progress(min(start + AT_ONCE, count))
    return tree_map(lambda *each: None if each[0] is None else torch.cat(each), *parts)


def _some(values: Any, rows: slice) -> Any:
    return tree_map(lambda each: None if each is None else each[rows], values)
