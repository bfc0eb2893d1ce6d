"""The report's charts as SVG whose colours are the page's own, so that they follow its light and dark themes."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import matplotlib
import matplotlib.ticker
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aime.inference.evaluation import Evaluation, FrameScores, Leaf, StateScores
from aime.inference.report.training_log import Record, names, series
from aime.primitives.intervals import Bounds

# colours that stand for the page's variables until the SVG is written
INK, LINE, FAINT = "#010101", "#010102", "#010103"
SERIES = ("#020201", "#020202", "#020203", "#020204", "#020205")
_VARIABLES = {INK: "ink", LINE: "line", FAINT: "faint"} | {
    colour: f"series-{number}" for number, colour in enumerate(SERIES, start=1)
}

MODEL, LIKELIEST, BEST, PERSISTENCE, MEAN = SERIES

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "aime",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 2.0,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}

BALANCE = "balance/"
"""What the names of all figures of a balancer begin with."""

BalanceKind = Literal["norm", "cosine", "angle"]


class _BalanceFigure(NamedTuple):
    title: str
    unit: str
    factor: float
    """From the logged unit to the one shown."""


_BALANCE: dict[BalanceKind, _BalanceFigure] = {
    "norm": _BalanceFigure("gradient norms of the tasks", "gradient norm", 1.0),
    "cosine": _BalanceFigure("cosines between the tasks' gradients", "cosine", 1.0),
    "angle": _BalanceFigure("rotation of the tasks' gradients", "degrees", 180 / math.pi),
}

PANEL = (3.15, 2.2)
"""Inches of one of many small panels."""


def skill_chart(evaluation: Evaluation) -> str:
    """Skill against horizon, of the model's two predictions and of the two baselines."""
    ahead, baselines = list(evaluation.horizons), evaluation.baselines
    reference = np.minimum(_mse(baselines.persistence), _mse(baselines.mean_image))
    with matplotlib.rc_context(_STYLE):
        figure, axes = _single("frames ahead", "skill")
        axes.axhline(0, color=FAINT, linewidth=1)
        mean = _curve_of(axes, evaluation, "skill", MODEL, f"mean of {evaluation.samples} samples")
        likeliest = _curve_of(axes, evaluation, "skill_likeliest", LIKELIEST, "most likely future")
        with np.errstate(divide="ignore", invalid="ignore"):
            _baseline(axes, ahead, 1 - _mse(baselines.persistence) / reference, "persistence", PERSISTENCE)
            _baseline(axes, ahead, 1 - _mse(baselines.mean_image) / reference, "mean image", MEAN)
        # one hopeless horizon would flatten all the others
        lowest = float(np.nanquantile([*mean, *likeliest, 0], 0.1))
        axes.set_ylim(min(lowest - 0.1, -0.5), 1)
        _legend(axes)
        return _svg(figure, "skill against horizon")


def psnr_chart(evaluation: Evaluation) -> str:
    """PSNR against horizon, of every prediction, the baselines and the reconstruction."""
    ahead, ends = list(evaluation.horizons), evaluation.intervals
    with matplotlib.rc_context(_STYLE):
        figure, axes = _single("frames ahead", "PSNR (dB)")
        drawn = evaluation.reconstruction.psnr
        axes.axhline(drawn, color=FAINT, linewidth=1.5, linestyle=":", label="reconstruction")
        _curve_of(axes, evaluation, "psnr", MODEL, f"mean of {evaluation.samples} samples")
        _curve_of(axes, evaluation, "psnr_likeliest", LIKELIEST, "most likely future")
        axes.plot(ahead, _psnr(evaluation.best_of), color=BEST, label=f"best of {evaluation.best_of_samples}")
        _band(axes, ahead, _psnr(ends.best_of), BEST)
        _baseline(axes, ahead, _psnr(evaluation.baselines.persistence), "persistence", PERSISTENCE)
        _baseline(axes, ahead, _psnr(evaluation.baselines.mean_image), "mean image", MEAN)
        _legend(axes)
        return _svg(figure, "PSNR against horizon")


def similarity_chart(evaluation: Evaluation) -> str:
    """Structural similarity against horizon, of the model's two predictions and of the reconstruction."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _single("frames ahead", "SSIM")
        axes.axhline(evaluation.reconstruction.ssim, color=FAINT, linewidth=1.5, linestyle=":", label="reconstruction")
        _curve_of(axes, evaluation, "ssim", MODEL, f"mean of {evaluation.samples} samples")
        _curve_of(axes, evaluation, "ssim_likeliest", LIKELIEST, "most likely future")
        axes.set_ylim(top=1)
        _legend(axes)
        return _svg(figure, "SSIM against horizon")


def coverage_chart(evaluation: Evaluation) -> str:
    """Share of the truth within the samples' 80 % interval, against horizon."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _single("frames ahead", "share of the truth inside")
        axes.axhline(0.8, color=FAINT, linestyle=":", linewidth=1.5, label="ideal")
        _curve_of(axes, evaluation, "coverage", MODEL, "all pixel values")
        _curve_of(axes, evaluation, "coverage_uncertain", LIKELIEST, "where the samples differ")
        axes.set_ylim(0, 1)
        _legend(axes)
        return _svg(figure, "coverage of the 80 % interval against horizon")


def state_chart(states: Mapping[int, StateScores[float]], ends: Mapping[int, StateScores[Bounds | None]]) -> str:
    """Error of the predicted state against horizon, of the model and of the two baselines."""
    ahead, scores = list(states), states.values()
    with matplotlib.rc_context(_STYLE):
        figure, axes = _single("frames ahead", "error, in standard deviations")
        axes.plot(ahead, [each.error for each in scores], color=MODEL, label="predicted state")
        _band(axes, ahead, [each.error for each in ends.values()], MODEL)
        _baseline(axes, ahead, [each.persistence for each in scores], "persistence", PERSISTENCE)
        _baseline(axes, ahead, [each.mean for each in scores], "mean state", MEAN)
        axes.set_ylim(bottom=0)
        _legend(axes)
        return _svg(figure, "state error against horizon")


class Curve(NamedTuple):
    """A score against the horizon."""

    label: str
    colour: str
    style: str
    values: Sequence[float]
    ends: Sequence[Bounds | None]
    """Its intervals, shown as a band; empty for none."""


def bounded_chart(title: str, unit: str, curves: Sequence[Curve]) -> str:
    """Scores that are 1 at best, against horizon."""
    ahead = range(1, len(curves[0].values) + 1)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _single("frames ahead", unit)
        for curve in curves:
            axes.plot(ahead, curve.values, color=curve.colour, linestyle=curve.style, label=curve.label)
            if curve.ends:
                _band(axes, ahead, curve.ends, curve.colour)
        axes.set_ylim(-0.5 if any(each < 0 for curve in curves for each in curve.values) else 0, 1.02)
        _legend(axes)
        return _svg(figure, title)


def surprise_chart(evaluation: Evaluation, clips: Float[np.ndarray, "B T"]) -> str:
    """Surprise over time: the evaluation's average, and the clips that the report shows."""
    average = evaluation.latent_surprise_by_frame
    time = list(range(1, len(average) + 1))
    with matplotlib.rc_context(_STYLE):
        figure, axes = _single("frame", "surprise")
        for number, clip in enumerate(clips):
            label = "the clips above" if number == 0 else None
            axes.plot(time, clip, color=FAINT, linewidth=1, alpha=0.7, label=label)
        axes.plot(time, average, color=MODEL, label="average")
        _band(axes, time, evaluation.intervals.latent_surprise_by_frame, MODEL)
        end = evaluation.context + 0.5
        axes.axvline(end, color=LIKELIEST, linewidth=1, linestyle=":", label="end of the context")
        _legend(axes)
        return _svg(figure, "surprise over time")


def mixture_chart(weights: Float[np.ndarray, "B T K"]) -> str:
    """The prior's mixture weights over time, one panel a clip; the heaviest components at the top."""
    order = weights.mean(axis=(0, 1)).argsort()[::-1]
    clips, length, components = weights.shape
    extent = (0.5, length + 0.5, components + 0.5, 0.5)
    with matplotlib.rc_context({**_STYLE, "axes.grid": False}):
        figure = Figure(figsize=(PANEL[0] * 4, 3.2), layout="constrained")
        grid = figure.subplots(1, clips, sharey=True, squeeze=False)[0]
        for number, (axes, clip) in enumerate(zip(grid, weights, strict=True), start=1):
            picture = axes.imshow(clip[:, order].T, vmin=0, vmax=weights.max(), aspect="auto", extent=extent)
            axes.set_title(f"clip {number}")
            axes.set_xlabel("frame")
        grid[0].set_ylabel("component")
        grid[0].yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, integer=True))
        bar = figure.colorbar(picture, ax=grid, shrink=0.9)
        bar.set_label("weight")
        return _svg(figure, "mixture weights over time")


def codebook_chart(counts: Int[np.ndarray, " codes"]) -> str:
    """How often each code is used, from the most used to the least."""
    shares = np.sort(counts)[::-1] / max(counts.sum(), 1)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _single("codes, by use", "share of tokens")
        axes.fill_between(np.arange(1, len(shares) + 1), shares, step="mid", color=MODEL, linewidth=0)
        axes.axhline(1 / len(shares), color=FAINT, linestyle=":", linewidth=1.5, label="uniform use")
        axes.set_xlim(0.5, len(shares) + 0.5)
        axes.set_ylim(bottom=0)
        _legend(axes)
        return _svg(figure, "use of the codebook")


def curves_chart(records: list[Record], shown: Sequence[str], columns: int = 4) -> str:
    """Small panels of logged figures against the step: every value faint, a running mean strong."""
    rows = -(-len(shown) // columns)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, name in zip(panels, shown, strict=False):
            steps, values = series(records, name)
            _curve(axes, np.array(steps), np.array(values))
            axes.set_title(name.replace("_", " "), loc="left")
        for axes in panels[len(shown) :]:
            axes.set_axis_off()
        return _svg(figure, ", ".join(shown))


def balance_chart(records: list[Record], kind: BalanceKind) -> str:
    """One logged figure of the balancer against the step, a line for each task or pair of tasks.

    Args:
        records: of the training log.
        kind: which figure.
    """
    shown = _BALANCE[kind]
    with matplotlib.rc_context(_STYLE):
        figure, axes = _single("step", shown.unit)
        for number, name in enumerate(balance_names(records, kind)):
            steps, values = (np.array(each) for each in series(records, name))
            label = name.removeprefix(balance_prefix(kind)).replace("_", " and ")
            style = "-" if number < len(SERIES) else "--"
            axes.plot(steps, shown.factor * running_mean(values), style, color=SERIES[number % 5], label=label)
        if kind == "norm":
            axes.set_yscale("log")
        if kind == "cosine":
            axes.axhline(0, color=FAINT, linewidth=1)
            axes.set_ylim(-1, 1)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, integer=True))
        _legend(axes)
        return _svg(figure, shown.title)


def balance_names(records: list[Record], kind: BalanceKind) -> list[str]:
    """The logged figures of a kind, in the order in which they first appear."""
    return [name for name in names(records) if name.startswith(balance_prefix(kind))]


def balance_prefix(kind: BalanceKind) -> str:
    """What the names of a kind's figures begin with, as `Balance.named` gives them."""
    return f"{BALANCE}{kind}_"


def running_mean(values: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """The mean of a twentieth of the values around each; values that are not finite do not count."""
    window = np.ones(max(1, len(values) // 20))
    finite = np.isfinite(values)
    counts = np.convolve(finite.astype(float), window, "same")
    with np.errstate(invalid="ignore"):
        return np.convolve(np.where(finite, values, 0.0), window, "same") / counts


def _curve(axes: Axes, steps: Float[np.ndarray, " N"], values: Float[np.ndarray, " N"]) -> None:
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    axes.plot(steps, values, color=MODEL, linewidth=0.8, alpha=0.35)
    if not values.size:
        return
    axes.plot(steps, running_mean(values), color=MODEL, linewidth=1.6)
    # the first steps are far off and would flatten the rest
    low, high = np.percentile(values, [1, 98] if len(values) >= 20 else [0, 100])
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
    axes.set_ylim(low - margin, high + margin)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(3, integer=True))
    axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))


def _single(across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.2, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    return figure, axes


def _legend(axes: Axes) -> None:
    axes.legend(fontsize=9, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)


def _curve_of(axes: Axes, evaluation: Evaluation, name: str, colour: str, label: str) -> list[float]:
    """Draw one score against the horizon with its band, and give its values."""
    ahead = list(evaluation.horizons)
    values = [getattr(scores, name) for scores in evaluation.horizons.values()]
    axes.plot(ahead, values, color=colour, label=label)
    _band(axes, ahead, [getattr(ends, name) for ends in evaluation.intervals.horizons.values()], colour)
    return values


def _baseline(
    axes: Axes, ahead: Sequence[int], values: Sequence[float] | Float[np.ndarray, " F"], label: str, colour: str
) -> None:
    axes.plot(ahead, values, color=colour, linestyle="--", linewidth=1.5, label=label)


def _band(axes: Axes, across: Sequence[int], ends: Sequence[Bounds | None], colour: str) -> None:
    """Shade the 95 % intervals of a curve, where there are any."""
    low, high = zip(*((math.nan, math.nan) if each is None else each for each in ends), strict=True)
    axes.fill_between(across, low, high, color=colour, alpha=0.18, linewidth=0)


def _mse(scores: Mapping[int, FrameScores[float]]) -> Float[np.ndarray, " F"]:
    return np.array([each.mse for each in scores.values()])


def _psnr(scores: Mapping[int, FrameScores[Leaf]]) -> list[Leaf]:
    return [each.psnr for each in scores.values()]


def _svg(figure: Figure, label: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # several charts share a page, where names of groups may not repeat; names that are referred to are hashes
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)
    for colour, name in _VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    text = re.sub(r"font-family: [^;\"]+|(?<=px )'DejaVu Sans'[^;\"]*", _family, text)
    # without a width and a height it takes those of its place
    opening = re.sub(r' (width|height)="[^"]*"', "", text[: text.index(">")])
    return opening.replace("<svg", f'<svg role="img" aria-label="{label}"', 1) + text[text.index(">") :]


def _family(match: re.Match[str]) -> str:
    return "font-family: system-ui, sans-serif" if match[0].startswith("font-family") else "system-ui, sans-serif"
