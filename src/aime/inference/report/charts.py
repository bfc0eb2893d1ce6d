"""The report's charts as SVG whose colours are the page's own, so that they follow its light and dark themes."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import matplotlib
import matplotlib.ticker
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aime.inference.evaluation import Evaluation
from aime.inference.report.training_log import Record, names, series
from aime.primitives.intervals import Bounds

# colours that stand for the page's variables until the SVG is written
INK, LINE, FAINT = "#010101", "#010102", "#010103"
SERIES = ("#020201", "#020202", "#020203", "#020204", "#020205")
_VARIABLES = {INK: "ink", LINE: "line", FAINT: "faint"} | {
    colour: f"series-{number}" for number, colour in enumerate(SERIES, start=1)
}

MODEL, LIKELIEST, BEST, PERSISTENCE, MEAN = SERIES

STYLE = {
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
"""The prefix of the names of a balancer's figures."""

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


def surprise_chart(evaluation: Evaluation, clips: Float[np.ndarray, "B T"]) -> str:
    """Surprise over time: the evaluation's average, and the clips that the report shows."""
    average = evaluation.latent_surprise_by_frame
    time = list(range(1, len(average) + 1))
    with matplotlib.rc_context(STYLE):
        figure, axes = single("frame", "surprise")
        for number, clip in enumerate(clips):
            label = "the clips above" if number == 0 else None
            axes.plot(time, clip, color=FAINT, linewidth=1, alpha=0.7, label=label)
        axes.plot(time, average, color=MODEL, label="average")
        band(axes, time, evaluation.intervals.latent_surprise_by_frame, MODEL)
        end = evaluation.context + 0.5
        axes.axvline(end, color=LIKELIEST, linewidth=1, linestyle=":", label="end of the context")
        legend(axes)
        return svg(figure, "surprise over time")


def mixture_chart(weights: Float[np.ndarray, "B T K"]) -> str:
    """The prior's mixture weights over time, one panel a clip; the heaviest components at the top."""
    order = weights.mean(axis=(0, 1)).argsort()[::-1]
    clips, length, components = weights.shape
    extent = (0.5, length + 0.5, components + 0.5, 0.5)
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
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
        return svg(figure, "mixture weights over time")


def codebook_chart(counts: Int[np.ndarray, " codes"]) -> str:
    """How often each code is used, from the most used to the least."""
    shares = np.sort(counts)[::-1] / max(counts.sum(), 1)
    with matplotlib.rc_context(STYLE):
        figure, axes = single("codes, by use", "share of tokens")
        axes.fill_between(np.arange(1, len(shares) + 1), shares, step="mid", color=MODEL, linewidth=0)
        axes.axhline(1 / len(shares), color=FAINT, linestyle=":", linewidth=1.5, label="uniform use")
        axes.set_xlim(0.5, len(shares) + 0.5)
        axes.set_ylim(bottom=0)
        legend(axes)
        return svg(figure, "use of the codebook")


def curves_chart(records: list[Record], shown: Sequence[str], columns: int = 4) -> str:
    """Small panels of logged figures against the step: every value faint, a running mean strong."""
    rows = -(-len(shown) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, name in zip(panels, shown, strict=False):
            steps, values = series(records, name)
            _curve(axes, np.array(steps), np.array(values))
            axes.set_title(name.replace("_", " "), loc="left")
        for axes in panels[len(shown) :]:
            axes.set_axis_off()
        return svg(figure, ", ".join(shown))


def balance_chart(records: list[Record], kind: BalanceKind) -> str:
    """One logged figure of the balancer against the step, a line for each task or pair of tasks.

    Args:
        records: of the training log.
        kind: which figure.
    """
    shown = _BALANCE[kind]
    with matplotlib.rc_context(STYLE):
        figure, axes = single("step", shown.unit)
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
        legend(axes)
        return svg(figure, shown.title)


def balance_names(records: list[Record], kind: BalanceKind) -> list[str]:
    """The logged figures of a kind, in the order in which they first appear."""
    return [name for name in names(records) if name.startswith(balance_prefix(kind))]


def balance_prefix(kind: BalanceKind) -> str:
    """The prefix of the names of a kind's figures, as in `Balance.named`."""
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


def single(across: str, up: str) -> tuple[Figure, Axes]:
    """A figure with one pair of axes and their labels."""
    figure = Figure(figsize=(6.2, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    return figure, axes


def legend(axes: Axes) -> None:
    """A legend above the axes."""
    axes.legend(fontsize=9, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)


def band(axes: Axes, across: Sequence[int], ends: Sequence[Bounds | None], colour: str) -> None:
    """Shade the 95 % intervals of a curve, where there are any."""
    low, high = zip(*((math.nan, math.nan) if each is None else each for each in ends), strict=True)
    axes.fill_between(across, low, high, color=colour, alpha=0.18, linewidth=0)


def svg(figure: Figure, label: str) -> str:
    """The figure as SVG; `label` describes it to screen readers."""
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
