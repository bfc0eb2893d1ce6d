"""The report's charts of scores against the number of frames ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np

from aime.inference.evaluation import Evaluation, Figures
from aime.inference.report.charts import (
    BEST,
    FAINT,
    LIKELIEST,
    MEAN,
    MODEL,
    PERSISTENCE,
    STYLE,
    band,
    legend,
    single,
    svg,
)
from aime.primitives.intervals import Bounds


class Curve(NamedTuple):
    """A score for 1, 2, ... frames ahead."""

    label: str
    colour: str
    values: Sequence[float]
    ends: Sequence[Bounds | None] = ()
    """Its intervals, shown as a band; empty for none."""
    style: str = "-"


def horizon_chart(
    title: str, unit: str, curves: Sequence[Curve], bottom: float | None = None, top: float | None = None
) -> str:
    """Scores against the number of frames ahead, as SVG.

    Args:
        title: what the chart shows, without its axis.
        unit: label of the vertical axis.
        curves: drawn in this order, of equal length.
        bottom: lower end of the vertical axis; None to fit the curves.
        top: upper end, likewise.
    """
    ahead = range(1, len(curves[0].values) + 1)
    with matplotlib.rc_context(STYLE):
        figure, axes = single("frames ahead", unit)
        for curve in curves:
            width = 2.0 if curve.style == "-" else 1.5
            axes.plot(ahead, curve.values, curve.style, color=curve.colour, linewidth=width, label=curve.label)
            if curve.ends:
                band(axes, ahead, curve.ends, curve.colour)
        axes.set_ylim(bottom, top)
        legend(axes)
        return svg(figure, f"{title} against horizon")


def skill_chart(evaluation: Evaluation) -> str:
    """Skill of the model's two predictions and of the two baselines."""
    persistence, mean_image = (
        np.array([each.mse for each in scores.values()])
        for scores in (evaluation.baselines.persistence, evaluation.baselines.mean_image)
    )
    better = np.minimum(persistence, mean_image)
    with np.errstate(divide="ignore", invalid="ignore"):
        baselines = [
            Curve("persistence", PERSISTENCE, (1 - persistence / better).tolist(), style="--"),
            Curve("mean image", MEAN, (1 - mean_image / better).tolist(), style="--"),
        ]
    predictions = _predictions(evaluation, "skill")
    # one very low horizon would flatten all the others
    lowest = float(np.nanquantile([*predictions[0].values, *predictions[1].values, 0], 0.1))
    return horizon_chart("skill", "skill", [*predictions, *baselines], min(lowest - 0.1, -0.5), 1)


def psnr_chart(evaluation: Evaluation) -> str:
    """PSNR of every prediction, the baselines and the reconstruction."""
    best = _curve(f"best of {evaluation.best_of_samples}", BEST, evaluation, lambda of: of.best_of, "psnr")
    persistence = _curve("persistence", PERSISTENCE, evaluation, lambda of: of.baselines.persistence, "psnr")
    mean_image = _curve("mean image", MEAN, evaluation, lambda of: of.baselines.mean_image, "psnr")
    baselines = [each._replace(ends=(), style="--") for each in (persistence, mean_image)]
    curves = [_reconstruction(evaluation, "psnr"), *_predictions(evaluation, "psnr"), best, *baselines]
    return horizon_chart("PSNR", "PSNR (dB)", curves)


def similarity_chart(evaluation: Evaluation) -> str:
    """Structural similarity of the model's two predictions and of the reconstruction."""
    curves = [_reconstruction(evaluation, "ssim"), *_predictions(evaluation, "ssim")]
    return horizon_chart("SSIM", "SSIM", curves, top=1)


def coverage_chart(evaluation: Evaluation) -> str:
    """Share of the truth within the samples' 80 % interval."""
    curves = [
        Curve("ideal", FAINT, [0.8] * evaluation.horizon, style=":"),
        _curve("all pixel values", MODEL, evaluation, lambda of: of.horizons, "coverage"),
        _curve("where the samples differ", LIKELIEST, evaluation, lambda of: of.horizons, "coverage_uncertain"),
    ]
    return horizon_chart("coverage of the 80 % interval", "share of the truth inside", curves, 0, 1)


def state_chart(evaluation: Evaluation) -> str:
    """Error of the predicted state, of the model and of the two baselines; asked of an evaluation with states."""
    curves = [
        _curve("predicted state", MODEL, evaluation, lambda of: of.states, "error"),
        _curve("persistence", PERSISTENCE, evaluation, lambda of: of.states, "persistence"),
        _curve("mean state", MEAN, evaluation, lambda of: of.states, "mean"),
    ]
    curves[1:] = [each._replace(ends=(), style="--") for each in curves[1:]]
    return horizon_chart("state error", "error, in standard deviations", curves, bottom=0)


def _predictions(evaluation: Evaluation, score: str) -> list[Curve]:
    """A score of the mean of the samples and of the most likely future."""
    mean = f"mean of {evaluation.samples} samples"
    return [
        _curve(mean, MODEL, evaluation, lambda of: of.horizons, score),
        _curve("most likely future", LIKELIEST, evaluation, lambda of: of.horizons, f"{score}_likeliest"),
    ]


def _curve(label: str, colour: str, evaluation: Evaluation, pick: Callable[[Figures[Any]], Any], score: str) -> Curve:
    values, ends = (
        [getattr(each, score) for each in pick(figures).values()] for figures in (evaluation, evaluation.intervals)
    )
    return Curve(label, colour, values, ends)


def _reconstruction(evaluation: Evaluation, score: str) -> Curve:
    value = getattr(evaluation.reconstruction, score)
    return Curve("reconstruction", FAINT, [value] * evaluation.horizon, style=":")
