"""A plot of the results: R² of the probe and returns of the clones, by training level."""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aime.benchmarking.dmc_vb.results import Benchmark
from aime.primitives.intervals import Interval

COLOURS = {"none": "#4d6fa8", "static": "#e8a33d", "dynamic": "#a8434d"}


def draw(benchmark: Benchmark) -> bytes:
    """A PNG of bars with 95 % intervals, if there is more than one episode."""
    levels = benchmark.levels
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    known, earned = figure.subplots(1, 2, width_ratios=(1, 2))
    _bars(known, [each.state for each in levels], 0.0, 0.6, "#777777", None)
    known.set_title("state from (h, z), R²", loc="left", fontsize=10)
    for number, (distractor, colour) in enumerate(COLOURS.items()):
        found = [each.returns.get(distractor) for each in levels]
        _bars(earned, found, 0.27 * (number - 1), 0.25, colour, f"played under {distractor}")
    earned.set_title("return of the clone" if benchmark.environment else "not played", loc="left", fontsize=10)
    if benchmark.environment:
        earned.legend(frameon=False, fontsize=8)
    for axis in (known, earned):
        axis.set_xticks(range(len(levels)), [each.level for each in levels])
        axis.set_xlabel("trained on")
        axis.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


def _bars(axis: Axes, found: list[Interval | None], shift: float, width: float, colour: str, label: str | None) -> None:
    for place, interval in enumerate(found):
        if interval is None:
            continue
        low, high = interval.bounds or (interval.mean, interval.mean)
        below, above = max(0.0, interval.mean - low), max(0.0, high - interval.mean)
        axis.bar(
            place + shift,
            interval.mean,
            width,
            color=colour,
            label=label if place == 0 else None,
            yerr=[[below], [above]] if interval.bounds else None,
            ecolor="#333333",
            capsize=2,
        )
