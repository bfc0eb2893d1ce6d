"""The figures of an evaluation and their intervals, from the scores of its clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from aime.inference import metrics
from aime.inference.clip_scores import BEST_OF, ClipScores
from aime.inference.evaluation import (
    Baselines,
    Evaluation,
    Figures,
    Foreground,
    ForegroundScores,
    FrameScores,
    HorizonScores,
    MaskScores,
    Overlap,
    Reading,
    ReadScores,
    ReadStates,
    ReconstructionScores,
    Sharpness,
    StateScores,
    mapped,
)
from aime.inference.foreground import Counts, ForegroundCounts
from aime.inference.mask_scores import MaskErrors
from aime.inference.sharpness import Gradients
from aime.inference.state_reader import ReadErrors
from aime.inference.state_scores import StateErrors
from aime.primitives.intervals import Bounds, bounds_of, pooled, resampled_counts

Drawn = Float64[Tensor, " R"]
"""One figure of each of R sets of episodes."""


def summarise(scores: ClipScores, episodes: Sequence[int] | np.ndarray, samples: int, **record: Any) -> Evaluation:
    """Average the scores over clips, ratios as ratios of averages, and compute the intervals of all figures.

    Args:
        scores: of B clips.
        episodes: B numbers; clips with the same one are of the same episode.
        samples: sampled futures of each clip.
        record: the fields of `Evaluation` that say what was evaluated.
    """
    count, horizon = scores.mse.shape
    number = len(set(map(int, episodes)))
    point, drawn = (figures_of(scores, episodes, counts) for counts in (None, resampled_counts(number)))
    figures: Figures[float] = mapped(lambda each: float(each[0]), point)
    intervals: Figures[Bounds | None] = mapped(
        lambda each, values: bounds_of(each, values.numpy(), number), figures, drawn
    )
    return Evaluation(
        **vars(figures),
        intervals=intervals,
        **record,
        episodes=number,
        clips=count,
        context=scores.reconstruction.shape[1] - horizon,
        horizon=horizon,
        samples=samples,
        best_of_samples=min(BEST_OF, samples),
    )


def figures_of(
    scores: ClipScores, episodes: Sequence[int] | np.ndarray, counts: Float64[np.ndarray, "R E"] | None = None
) -> Figures[Drawn]:
    """Every figure, for each of R sets of the episodes.

    Args:
        scores: of B clips.
        episodes: B numbers; clips with the same one are of the same episode.
        counts: how often each of the E episodes, by rising number, is counted; by default, one set that has each once.
    """
    groups = pooled(episodes)
    counts = np.ones((1, len(groups))) if counts is None else counts
    return _Averages(torch.from_numpy(counts @ groups)).figures(scores)


class _Averages:
    """Figures of R sets of clips, in which each of B clips is counted so many times."""

    def __init__(self, counts: Float64[Tensor, "R B"]) -> None:
        self.counts = counts

    def total(self, values: Float[Tensor, "B N"]) -> Float64[Tensor, "R N"]:
        """Sums over clips; NaN where a clip that is counted has NaN."""
        unknown = values.isnan()
        known = self.counts @ values.double().masked_fill(unknown, 0.0)
        return known.masked_fill(self.counts @ unknown.double() > 0, torch.nan)

    def mean(self, values: Float[Tensor, "B N"]) -> Float64[Tensor, "R N"]:
        """Means over clips."""
        return self.total(values) / self.counts.sum(dim=1, keepdim=True)

    def known_mean(self, values: Float[Tensor, "B N"]) -> Float64[Tensor, "R N"]:
        """Means over the clips in which a value is not NaN."""
        unknown = values.isnan()
        return self.total(values.masked_fill(unknown, 0.0)) / self.total((~unknown).double())

    def overall(self, values: Float[Tensor, "B T"]) -> Drawn:
        """Means over clips and frames."""
        return self.mean(values).mean(dim=1)

    def figures(self, scores: ClipScores) -> Figures[Drawn]:
        return Figures(
            horizons=self.horizons(scores),
            best_of=self.frames(scores.mse_best),
            reconstruction=ReconstructionScores(
                mse=self.overall(scores.reconstruction),
                psnr=self.overall(metrics.psnr(scores.reconstruction)),
                ssim=self.overall(scores.ssim_reconstruction),
                psnr_mean_image=self.overall(metrics.psnr(scores.mean_image)),
            ),
            baselines=Baselines(self.frames(scores.persistence), self.frames(scores.mean_image_ahead)),
            latent_surprise=self.overall(scores.latent_surprise),
            latent_surprise_by_frame=list(self.mean(scores.latent_surprise).unbind(dim=1)),
            frame_bound=self.overall(scores.frame_bound),
            prior_nll=self.overall(scores.prior_nll),
            kl_z=self.overall(scores.prior_nll + scores.posterior_log),
            kl_hierarchical=self.overall(scores.kl_hierarchical),
            effective_components=metrics.perplexity(self.mean(scores.weights)),
            codebook_perplexity=metrics.perplexity(self.total(scores.codes)),
            states=self.states(scores.state),
            foreground=self.foreground(scores.foreground),
            read_states=self.read_states(scores.read),
            masks=self.masks(scores.masks),
            sharpness=self.sharpness(scores.gradients),
            body_sharpness=self.sharpness(scores.body_gradients),
        )

    def horizons(self, scores: ClipScores) -> dict[int, HorizonScores[Drawn]]:
        baselines = self.mean(scores.persistence), self.mean(scores.mean_image_ahead)
        mse, mse_likeliest = self.mean(scores.mse), self.mean(scores.mse_likeliest)
        return _by_horizon(
            HorizonScores,
            mse=mse,
            psnr=self.mean(metrics.psnr(scores.mse)),
            ssim=self.mean(scores.ssim),
            skill=metrics.skill(mse, *baselines),
            mse_likeliest=mse_likeliest,
            psnr_likeliest=self.mean(metrics.psnr(scores.mse_likeliest)),
            ssim_likeliest=self.mean(scores.ssim_likeliest),
            skill_likeliest=metrics.skill(mse_likeliest, *baselines),
            energy_score=self.mean(scores.energy),
            coverage=self.mean(scores.covered),
            # a clip weighs as much as it has uncertain pixels: 0 / 0, where there is none at all, is NaN
            coverage_uncertain=self.total(scores.held) / self.total(scores.uncertain),
        )

    def frames(self, mse: Float[Tensor, "B F"]) -> dict[int, FrameScores[Drawn]]:
        return _by_horizon(FrameScores, mse=self.mean(mse), psnr=self.mean(metrics.psnr(mse)))

    def states(self, errors: StateErrors) -> dict[int, StateScores[Drawn]] | None:
        if not errors.predicted.isfinite().any():
            return None
        model, persistence, mean = (self.known_mean(each) for each in errors)
        return _by_horizon(
            StateScores,
            r2=1 - model / mean,
            error=model.sqrt(),
            persistence=persistence.sqrt(),
            mean=mean.sqrt(),
        )

    def foreground(self, counts: ForegroundCounts) -> Foreground[Drawn] | None:
        if not counts.likeliest.true.isfinite().any():
            return None
        judged = {name: _rows(self.overlap(getattr(counts, name))) for name in _names(ForegroundScores)}
        whole = Counts(*(each.sum(dim=1, keepdim=True) for each in counts.true_frames))
        return Foreground(
            share=self.mean(counts.share)[:, 0],
            true_frames=self.overlap(whole).f1[:, 0],
            horizons=_numbered(ForegroundScores, judged),
        )

    def overlap(self, counts: Counts) -> Overlap[Float64[Tensor, "R F"]]:
        hits, found, true = (self.total(each) for each in counts)
        return Overlap(precision=hits / found, recall=hits / true, f1=2 * hits / (found + true))

    def read_states(self, errors: ReadErrors) -> ReadStates[Drawn] | None:
        if not errors.likeliest.isfinite().any():
            return None
        ahead = ReadErrors(*(each.nanmean(dim=2) for each in errors))
        entries = ReadErrors(*(each.nanmean(dim=1) for each in errors))
        return ReadStates(
            entries=list(_numbered(ReadScores, self.readings(entries)).values()),
            horizons=_numbered(ReadScores, self.readings(ahead)),
        )

    def readings(self, errors: ReadErrors) -> dict[str, list[Reading[Drawn]]]:
        mean = self.known_mean(errors.mean)
        judged = {name: self.known_mean(getattr(errors, name)) for name in _names(ReadScores)}
        return {name: _rows(Reading(r2=1 - each / mean, error=each.sqrt())) for name, each in judged.items()}

    def masks(self, scores: MaskErrors) -> MaskScores[Drawn] | None:
        if not scores.area.isfinite().any():
            return None
        single = {name: getattr(scores, name) for name in ("slot_iou", "whole_iou", "grid_iou", "foreground_ari")}
        clips = {name: each.nanmean(dim=1, keepdim=True) for name, each in single.items()}
        mass, area = (self.total(each.nansum(dim=1, keepdim=True))[:, 0] for each in (scores.attention, scores.area))
        return MaskScores(
            **{name: self.known_mean(each)[:, 0] for name, each in clips.items()}, attention_ratio=mass / area
        )

    def sharpness(self, gradients: Gradients) -> Sharpness[Drawn] | None:
        if not gradients.true.isfinite().any():
            return None
        true = self.total(gradients.true).sum(dim=1)
        return Sharpness(**{name: self.total(getattr(gradients, name)).sum(dim=1) / true for name in _names(Sharpness)})


def _rows(columns: Any) -> list[Any]:
    """A dataclass of R rows and F columns as F of its kind, of R numbers each."""
    each = zip(*(column.unbind(dim=1) for column in vars(columns).values()), strict=True)
    return [type(columns)(*values) for values in each]


def _numbered(kind: Any, columns: dict[str, list[Any]]) -> dict[int, Any]:
    """For each number from 1 on, a `kind` of the columns' values."""
    rows = zip(*columns.values(), strict=True)
    return {number: kind(**dict(zip(columns, row, strict=True))) for number, row in enumerate(rows, start=1)}


def _names(kind: Any) -> list[str]:
    return [each.name for each in fields(kind)]


def _by_horizon(kind: Any, **columns: Float64[Tensor, "R F"]) -> dict[int, Any]:
    """The columns of each frame ahead, counted from 1, by the names of the fields of `kind`."""
    return _numbered(kind, {name: list(column.unbind(dim=1)) for name, column in columns.items()})
