"""The scores of a run's predictions on episodes that it never trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from aime.data import Clips
from aime.data.clips import clip_seeds, clip_starts, read_clips
from aime.inference import metrics
from aime.inference.clip_scores import BEST_OF, ClipScores
from aime.inference.evaluation import Evaluation
from aime.inference.foreground import ForegroundCounts, count_foreground, differs, unknown_foreground
from aime.inference.loading import load_run
from aime.inference.mask_scores import no_masks, score_masks
from aime.inference.predictors import ClipPredictor
from aime.inference.references import References, gather_references
from aime.inference.request import EvaluationRequest
from aime.inference.sharpness import gradients_of, unknown_gradients
from aime.inference.state_reader import no_reading
from aime.inference.state_scores import StateErrors, state_errors
from aime.inference.summary import summarise
from aime.inference.unseen import open_unseen
from aime.primitives.checksums import sha256_of
from aime.primitives.files import write_atomically
from aime.primitives.pixels import to_unit
from aime.primitives.seeded_noise import posterior_samples
from aime.representation.divergences import hierarchical_kl
from aime.world_model.saved import AVERAGED_WEIGHTS, read_checkpoint

BYTES_AT_ONCE = 120_000_000
"""Memory for the sampled frames of one batch; scoring them takes about three times as much."""

ProgressCallback = Callable[[int, int], None]
"""Called with how many clips are done, and how many there are."""


class ScoredRun(NamedTuple):
    """An evaluation, and the scores of single clips, from which paired differences are computed."""

    evaluation: Evaluation
    scores: ClipScores
    episodes: Int64[np.ndarray, " B"]
    """The number of the episode of each clip."""
    seeds: list[int]
    """Of the clips, which follow from their contents: two runs with the same seeds were scored on the same clips."""


def evaluate_run(
    run: str | Path,
    request: EvaluationRequest | None = None,
    out: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> Evaluation:
    """Score a run's predictions on episodes that it never trained on; always gives the same numbers.

    Args:
        run: the run directory.
        request: on which clips, and how; by default `EvaluationRequest()`.
        out: a JSON file to write; one that is there is replaced.
        progress: called after each batch with how many clips are done, and how many there are.

    Raises:
        AimeError: if `run` is no run, if the data is missing, damaged, too short or does not fit the model, or if
            `out` cannot be written.
    """
    return score_run(run, request, out, progress).evaluation


def score_run(
    run: str | Path,
    request: EvaluationRequest | None = None,
    out: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> ScoredRun:
    """The same as `evaluate_run`, with the scores of the clips."""
    request = EvaluationRequest() if request is None else request
    info, model = load_run(run, request.device)
    unseen = open_unseen(info, request.data, request.context, request.horizon, request.part)
    places = clip_starts(unseen.dataset, request.length, request.most_clips)
    batch = read_clips(unseen.dataset, places, request.length)
    seeds = clip_seeds(unseen.dataset, places)
    references = gather_references(unseen, places, batch, model.baseline_image)
    scores = score_clips(ClipPredictor(model), batch, seeds, request.context, request.samples, progress, references)
    evaluation = summarise(
        scores,
        places.episodes,
        request.samples,
        run=str(run),
        data=unseen.dataset.name,
        split=unseen.part,
        weights=weights_digest(run),
        unseen=unseen.title,
        content=unseen.content,
        foreground_from=references.scene.title,
        state_reader=references.reader_title,
        read_entries=references.entries,
    )
    if out is not None:
        write_atomically(Path(out), evaluation.to_json().encode())
    return ScoredRun(evaluation, scores, places.episodes, seeds)


def weights_digest(run: str | Path) -> str:
    """The SHA-256 of a run's averaged weights, by which an evaluation is known to be theirs.

    Raises:
        AimeError: if there is no checkpoint yet.
    """
    return read_checkpoint(run, lambda directory: sha256_of(directory / AVERAGED_WEIGHTS), [AVERAGED_WEIGHTS])


@torch.inference_mode()
def score_clips(
    model: ClipPredictor,
    clips: Clips,
    seeds: Sequence[int],
    context: int,
    samples: int,
    progress: ProgressCallback | None = None,
    references: References | None = None,
) -> ClipScores:
    """Score every clip by itself, in batches of bounded memory; the result is on the CPU.

    Order and batches change nothing: the noise of a clip's samples follows from its seed alone, bit by bit, and the
    scores agree to what rounding in float32 makes of products in other batches (2e-5 of a score on the CPU).

    Args:
        model: in eval mode.
        clips: B clips of T steps without padding.
        seeds: one a clip; see `clip_seeds`.
        context: frames that the model sees, 1..T-1; the rest is predicted.
        samples: sampled futures of each clip, 1 or more.
        progress: called after each batch with how many clips are done, and how many there are.
        references: of the same clips; by default no score that needs them is made.
    """
    references = References() if references is None else references
    count, length = clips.frames.shape[:2]
    at_once = max(1, BYTES_AT_ONCE // (4 * samples * (length - context) * clips.frames[0, 0].numel()))
    parts = []
    for start in range(0, count, at_once):
        part = clips.rows(slice(start, start + at_once))
        own = references.rows(start, start + at_once, model.device)
        scores = _score_batch(model, part.to(model.device), seeds[start : start + at_once], context, samples, own)
        parts.append(scores)
        if progress is not None:
            progress(min(start + at_once, count), count)
    return _joined(parts)


def _joined(parts: Sequence[Any]) -> Any:
    """Tuples of tensors, nested ones too, as one of the same kind, on the CPU."""
    fields = [
        torch.cat(each).cpu() if isinstance(each[0], Tensor) else _joined(each) for each in zip(*parts, strict=True)
    ]
    return type(parts[0])(*fields)


def _score_batch(
    model: ClipPredictor, clips: Clips, seeds: Sequence[int], context: int, samples: int, references: References
) -> ClipScores:
    """Score the clips of one batch, each of which is encoded once."""
    frames = to_unit(clips.frames)
    truth, states = frames[:, context:], clips.states
    outputs = model.outputs(clips, seeds, context, samples)
    output, futures, likeliest = outputs.sequence, outputs.sampled.frames, outputs.likeliest.frames
    mean, covered = futures.mean(dim=1), metrics.coverage(futures, truth)
    unknown = torch.full_like(truth[:, :, 0, 0, 0], torch.nan)
    sampled = posterior_samples(output.posterior, seeds, 1)[:, 0]
    shown = truth, likeliest, futures[:, 0], output.reconstructions[:, context:]
    prior, codes = output.prior, model.config.tokenizer.codes
    return ClipScores(
        mse=metrics.frame_mse(mean, truth),
        ssim=_frame_ssim(mean, truth),
        mse_likeliest=metrics.frame_mse(likeliest, truth),
        ssim_likeliest=_frame_ssim(likeliest, truth),
        mse_best=metrics.best_of(metrics.frame_mse(futures[:, :BEST_OF], truth[:, None])),
        energy=metrics.energy_score(futures, truth),
        covered=unknown if covered is None else covered.everywhere,
        held=unknown if covered is None else covered.held,
        uncertain=unknown if covered is None else covered.uncertain,
        persistence=metrics.frame_mse(frames[:, context - 1 : context], truth),
        reconstruction=metrics.frame_mse(output.reconstructions, frames),
        mean_image=metrics.frame_mse(model.baseline_image, frames),
        ssim_reconstruction=_frame_ssim(output.reconstructions, frames),
        latent_surprise=outputs.latent_surprise,
        frame_bound=outputs.frame_bound,
        prior_nll=-prior.mixture.log_prob(sampled)[:, context:],
        posterior_log=output.posterior.log_prob(sampled)[:, context:],
        kl_hierarchical=hierarchical_kl(prior.sticks, prior.concentration)[:, context:],
        weights=prior.mixture.log_weights.exp().mean(dim=1),
        codes=torch.stack([torch.bincount(each.flatten(), minlength=codes) for each in output.tokens]).float(),
        state=StateErrors(unknown, unknown, unknown)
        if model.state_scale is None or states is None or outputs.sampled.states is None
        else state_errors(model.state_scale, outputs.sampled.states, states, context),
        foreground=_foreground(references, frames, context, likeliest, futures, output.reconstructions),
        read=no_reading(unknown)
        if isinstance(references.reader, str) or clips.states is None
        else references.reader.judge(likeliest, futures, frames, clips.states),
        masks=no_masks(torch.full_like(frames[:, :, 0, 0, 0], torch.nan))
        if references.masks is None
        else score_masks(output.attention, references.masks),
        gradients=gradients_of(*shown),
        body_gradients=unknown_gradients(unknown)
        if references.masks is None
        else gradients_of(*shown, references.masks[:, context:]),
    )


def _foreground(
    references: References,
    frames: Float[Tensor, "B T 3 H W"],
    context: int,
    likeliest: Float[Tensor, "B F 3 H W"],
    futures: Float[Tensor, "B S F 3 H W"],
    reconstructions: Float[Tensor, "B T 3 H W"],
) -> ForegroundCounts:
    image, truth = references.scene.images, frames[:, context:]
    if image is None:
        return unknown_foreground(torch.full_like(truth[:, :, 0, 0, 0], torch.nan))
    masks = references.masks
    true = differs(truth, image[:, None]) if masks is None else masks[:, context:] > 0
    return count_foreground(
        image,
        true,
        likeliest=likeliest,
        futures=futures,
        last=frames[:, context - 1],
        reconstructions=reconstructions[:, context:],
        frames=truth,
    )


def _frame_ssim(predicted: Float[Tensor, "B T 3 H W"], truth: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B T"]:
    return metrics.ssim(predicted.flatten(0, 1), truth.flatten(0, 1)).unflatten(0, truth.shape[:2])
