"""How good a run's predictions are, on episodes that it never trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aime.data import Clips, load_clips
from aime.errors import AimeError
from aime.inference import metrics
from aime.inference.evaluation import (
    Baselines,
    Evaluation,
    FrameScores,
    HorizonScores,
    ReconstructionScores,
)
from aime.inference.loading import Device, load_run, open_unseen
from aime.inference.state_scores import StateErrors, state_errors, summarise_states
from aime.primitives.distributions import DiagonalGaussian
from aime.primitives.files import write_atomically
from aime.primitives.randomness import apart
from aime.primitives.standardise import Standardise
from aime.world_model.config import ModelConfig
from aime.world_model.doors import observed
from aime.world_model.outputs import FuturePrediction, SequenceOutput
from aime.world_model.saved import AVERAGED_WEIGHTS, read_checkpoint

MOST_CLIPS = 64
"""Clips that an evaluation takes unless told otherwise: the first of every episode, then the second, and so on."""

BEST_OF = 8
"""Samples among which the best is sought."""

BYTES_AT_ONCE = 120_000_000
"""Memory for the sampled frames of one batch; scoring them takes about three times as much."""

Progress = Callable[[int, int], None]
"""Told how many clips are done, and how many there are."""


class Predictor(Protocol):
    """What an evaluation asks of a model; `AIME` is one."""

    @property
    def config(self) -> ModelConfig:
        """The sizes of frames, actions and codebook."""

    @property
    def device(self) -> torch.device:
        """Where clips must be."""

    @property
    def mean_image(self) -> Float[Tensor, "3 H W"]:
        """The training set's mean frame, in [0, 1]."""

    @property
    def state_scale(self) -> Standardise | None:
        """See `AIME.state_scale`."""

    def forward_sequence(
        self,
        frames: Tensor,
        actions: Tensor | None = None,
        action_valid: Bool[Tensor, "B T"] | None = None,
        states: Tensor | None = None,
    ) -> SequenceOutput:
        """See `AIME.forward_sequence`."""

    def predict_future(
        self,
        context_frames: Tensor,
        actions: Tensor,
        samples: int | None = None,
        seed: int = 0,
        *,
        states: Tensor | None = None,
    ) -> FuturePrediction:
        """See `AIME.predict_future`."""

    def surprise(
        self,
        frames: Tensor,
        actions: Tensor | None = None,
        samples: int = 8,
        seed: int = 0,
        states: Tensor | None = None,
    ) -> Float[Tensor, "B T"]:
        """See `AIME.surprise`."""


class ClipScores(NamedTuple):
    """The scores of B clips before they are averaged; `F` counts predicted frames, `T` all of them."""

    mse: Float[Tensor, "B F"]
    ssim: Float[Tensor, "B F"]
    mse_likeliest: Float[Tensor, "B F"]
    ssim_likeliest: Float[Tensor, "B F"]
    mse_best: Float[Tensor, "B F"]
    energy: Float[Tensor, "B F"]
    covered: Float[Tensor, "B F"]
    """NaN where there are too few samples for an interval, like the next two."""
    held: Float[Tensor, "B F"]
    uncertain: Float[Tensor, "B F"]
    persistence: Float[Tensor, "B F"]
    climatology: Float[Tensor, "B F"]
    reconstruction: Float[Tensor, "B T"]
    """Mean squared errors, like the next."""
    mean_image: Float[Tensor, "B T"]
    ssim_reconstruction: Float[Tensor, "B T"]
    surprise: Float[Tensor, "B T"]
    prior_nll: Float[Tensor, "B F"]
    """-log p(z_t | past) of a sample of the posterior, in nats; the next is log q(z_t | x_t, c_t) of the same."""
    posterior_log: Float[Tensor, "B F"]
    weights: Float[Tensor, "B K"]
    """Mixture weights of the prior, averaged over frames."""
    codes: Float[Tensor, "B codes"]
    """How often each code was used."""
    state: StateErrors


def evaluate_run(
    run: str | Path,
    data: str | Path | None = None,
    context: int = 5,
    horizon: int = 45,
    samples: int = 16,
    clips: int | None = None,
    device: Device = "auto",
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Judge a run's predictions on episodes that it never trained on; always gives the same numbers.

    Args:
        run: the run directory.
        data: a directory of shards, one shard or bundled:NAME; by default, the run's own data. Of the run's own data
            and of a bundled data set the held-out part is taken, and all of any other.
        context: frames that the model sees, 1 or more.
        horizon: frames that it then predicts, 1 or more.
        samples: sampled futures of each clip, 1 or more.
        clips: at most so many clips, `MOST_CLIPS` by default; the first clip of every episode comes first.
        device: where to compute.
        out: a JSON file to write; one that is there is replaced.
        progress: told after each batch how many clips are done, and how many there are.

    Raises:
        AimeError: if `run` is no run, if `data` is missing, damaged, too short or does not fit the model, if a number
            is below 1, or if `out` cannot be written.
    """
    for name, value in (("samples", samples), ("clips", MOST_CLIPS if clips is None else clips)):
        if value < 1:
            raise AimeError(f"{name} is {value}; expected 1 or more: leave --{name} out for the usual number")
    info, model = load_run(run, device)
    unseen = open_unseen(info, data, context, horizon)
    batch = load_clips(unseen.dataset, context + horizon, MOST_CLIPS if clips is None else clips)
    scores = score_clips(model, batch, context, samples, progress)
    evaluation = summarise(
        scores,
        samples,
        run=str(run),
        data=unseen.dataset.name,
        split=unseen.split,
        weights=weights_digest(run),
    )
    if out is not None:
        write_atomically(Path(out), evaluation.to_json().encode())
    return evaluation


def weights_digest(run: str | Path) -> str:
    """The SHA-256 of a run's averaged weights, by which an evaluation is known to be theirs.

    Raises:
        AimeError: if there is no checkpoint yet.
    """

    def digest(directory: Path) -> str:
        with open(directory / AVERAGED_WEIGHTS, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return read_checkpoint(run, digest, [AVERAGED_WEIGHTS])


@torch.inference_mode()
def score_clips(
    model: Predictor, clips: Clips, context: int, samples: int, progress: Progress | None = None
) -> ClipScores:
    """Score every clip by itself, in batches of bounded memory; the result is on the CPU.

    Args:
        model: in eval mode.
        clips: B clips of T steps without padding.
        context: frames that the model sees, 1..T-1; the rest is predicted.
        samples: sampled futures of each clip, 1 or more.
        progress: told after each batch how many clips are done, and how many there are.
    """
    count, length = clips.frames.shape[:2]
    at_once = max(1, BYTES_AT_ONCE // (4 * samples * (length - context) * clips.frames[0, 0].numel()))
    parts = []
    for start in range(0, count, at_once):
        part = Clips(*(None if field is None else field[start : start + at_once] for field in clips))  # type: ignore[arg-type]
        scores = _score_batch(model, part.to(model.device), context, samples, seed=start)
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


def _score_batch(model: Predictor, clips: Clips, context: int, samples: int, seed: int) -> ClipScores:
    frames = clips.frames.float() / 255
    seen, truth = frames[:, :context], frames[:, context:]
    states = observed(clips.states, model.config)
    past = None if states is None else states[:, :context]
    foretold = model.predict_future(seen, clips.actions, samples, seed, states=past)
    futures = foretold.frames
    likeliest = model.predict_future(seen, clips.actions, states=past).frames
    mean = futures.mean(dim=1)
    covered = metrics.coverage(futures, truth)
    unknown = torch.full_like(truth[:, :, 0, 0, 0], torch.nan)
    output = model.forward_sequence(frames, clips.actions, clips.action_valid, states)
    sampled = _sample(output.posterior, seed)
    codes = torch.stack([torch.bincount(each.flatten(), minlength=_codes(model)) for each in output.tokens])
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
        persistence=metrics.frame_mse(seen[:, -1:], truth),
        climatology=metrics.frame_mse(model.mean_image, truth),
        reconstruction=metrics.frame_mse(output.reconstructions, frames),
        mean_image=metrics.frame_mse(model.mean_image, frames),
        ssim_reconstruction=_frame_ssim(output.reconstructions, frames),
        surprise=model.surprise(frames, clips.actions, states=states),
        prior_nll=-output.prior.mixture.log_prob(sampled)[:, context:],
        posterior_log=output.posterior.log_prob(sampled)[:, context:],
        weights=output.prior.mixture.log_weights.exp().mean(dim=1),
        codes=codes.float(),
        state=StateErrors(unknown, unknown, unknown)
        if model.state_scale is None or states is None or foretold.states is None
        else state_errors(model.state_scale, foretold.states, states, context),
    )


def _sample(posterior: DiagonalGaussian, seed: int) -> Float[Tensor, "B T latent"]:
    with apart(posterior.mean.device, seed):
        return posterior.rsample()


def _codes(model: Predictor) -> int:
    return model.config.tokenizer.codes


def _frame_ssim(predicted: Float[Tensor, "B T 3 H W"], truth: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B T"]:
    return metrics.ssim(predicted.flatten(0, 1), truth.flatten(0, 1)).unflatten(0, truth.shape[:2])


def summarise(scores: ClipScores, samples: int, *, run: str, data: str, split: str, weights: str) -> Evaluation:
    """Average the scores over clips: errors first, then what is made of them.

    Args:
        scores: of every clip.
        samples: sampled futures of each clip.
        run: for the record, like `data`, `split` and `weights`.
        data: the data set.
        split: the part of it.
        weights: the digest of the model's weights.
    """
    count, horizon = scores.mse.shape
    mixture = scores.weights.mean(dim=0)
    return Evaluation(
        run=run,
        data=data,
        split=split,
        weights=weights,
        clips=count,
        context=scores.reconstruction.shape[1] - horizon,
        horizon=horizon,
        samples=samples,
        horizons=_horizons(scores),
        best_of_samples=min(BEST_OF, samples),
        best_of=_frame_scores(scores.mse_best),
        reconstruction=_reconstruction(scores),
        baselines=Baselines(_frame_scores(scores.persistence), _frame_scores(scores.climatology)),
        surprise=float(scores.surprise.mean()),
        surprise_by_frame=scores.surprise.mean(dim=0).tolist(),
        prior_nll=float(scores.prior_nll.mean()),
        kl_z=float((scores.prior_nll + scores.posterior_log).mean()),
        effective_components=metrics.perplexity(mixture),
        codebook_perplexity=metrics.perplexity(scores.codes.sum(dim=0)),
        states=summarise_states(scores.state),
    )


def _horizons(scores: ClipScores) -> dict[int, HorizonScores]:
    baselines = scores.persistence.mean(dim=0), scores.climatology.mean(dim=0)
    columns = {
        "mse": scores.mse.mean(dim=0),
        "psnr": metrics.psnr(scores.mse).mean(dim=0),
        "ssim": scores.ssim.mean(dim=0),
        "skill": metrics.skill(scores.mse.mean(dim=0), *baselines),
        "mse_likeliest": scores.mse_likeliest.mean(dim=0),
        "psnr_likeliest": metrics.psnr(scores.mse_likeliest).mean(dim=0),
        "ssim_likeliest": scores.ssim_likeliest.mean(dim=0),
        "skill_likeliest": metrics.skill(scores.mse_likeliest.mean(dim=0), *baselines),
        "energy_score": scores.energy.mean(dim=0),
        "coverage": scores.covered.mean(dim=0),
        # a clip weighs as much as it has uncertain pixels: 0 / 0, where there is none at all, is NaN
        "coverage_uncertain": scores.held.sum(dim=0) / scores.uncertain.sum(dim=0),
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return {number: HorizonScores(**dict(zip(columns, row, strict=True))) for number, row in enumerate(rows, start=1)}


def _frame_scores(mse: Float[Tensor, "B F"]) -> dict[int, FrameScores]:
    pairs = zip(mse.mean(dim=0).tolist(), metrics.psnr(mse).mean(dim=0).tolist(), strict=True)
    return {number: FrameScores(*pair) for number, pair in enumerate(pairs, start=1)}


def _reconstruction(scores: ClipScores) -> ReconstructionScores:
    return ReconstructionScores(
        mse=float(scores.reconstruction.mean()),
        psnr=float(metrics.psnr(scores.reconstruction).mean()),
        ssim=float(scores.ssim_reconstruction.mean()),
        psnr_mean_image=float(metrics.psnr(scores.mean_image).mean()),
    )
