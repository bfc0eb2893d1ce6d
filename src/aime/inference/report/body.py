"""The report's section on the body in predictions: its foreground, its state, slots and attention on it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from aime.inference.evaluation import Evaluation
from aime.inference.report import charts, page
from aime.inference.report.horizon_charts import Curve, horizon_chart
from aime.inference.report.page import Cell
from aime.inference.score_rows import MASKS, rows_of
from aime.primitives.interval_text import bounds_text, number_text

_KINDS = (
    ("likeliest", "most likely future", charts.MODEL, "-"),
    ("samples", "sampled futures", charts.LIKELIEST, "-"),
    ("reconstruction", "reconstruction", charts.FAINT, ":"),
    ("true_frames", "true frames", charts.FAINT, ":"),
    ("persistence", "persistence", charts.PERSISTENCE, "--"),
)
"""Kinds of frames: field, label, and how the curve is drawn."""

_FOREGROUND = (
    "F1 of the foreground: the pixels that differ from the scene without the body, in the predicted frame and in the "
    "true one. A prediction without a thin part has a lower F1 and nearly the same PSNR. The scene is"
)
_READ = (
    "R² of the state that a small network reads from single frames: predicted ones, and true ones as the upper limit. "
    "Two bodies, a missing part or a bent one are misread. The network is"
)
_MASKS = (
    "Intersection over union (IoU) of a body with its best slot is 1 at best; the next two rows are its lower and "
    "upper limit: one slot for the whole frame, and the best slot of whole cells. Attention on a body is the mass of "
    "A_t on its pixels, divided by its share of the area: 1 is a uniform map. The foreground ARI needs two bodies."
)


def body_section(evaluation: Evaluation) -> str:
    """Charts and a table, or a line that says why there is none."""
    ends = evaluation.intervals
    drawn, missing = [], []
    if evaluation.foreground and ends.foreground:
        chart = _chart("foreground F1", "F1", "f1", evaluation.foreground.horizons, ends.foreground.horizons)
        share = f"the true foreground is {evaluation.foreground.share:.1%} of the pixels"
        drawn.append(page.figure(chart, f"{_FOREGROUND} {escape(evaluation.foreground_from)}; {share}."))
    else:
        missing.append(f"Scene without the body: {escape(evaluation.foreground_from)}.")
    if evaluation.read_states and ends.read_states:
        chart = _chart("state read from frames", "R²", "r2", evaluation.read_states.horizons, ends.read_states.horizons)
        drawn.append(page.figure(chart, f"{_READ} {escape(evaluation.state_reader)}."))
    else:
        missing.append(f"Reader of states: {escape(evaluation.state_reader)}.")
    notes = page.note(" ".join(missing)) if missing else ""
    return page.side_by_side(*drawn) + notes + _masks(evaluation)


def _chart(title: str, unit: str, score: str, found: Mapping[int, Any], ends: Mapping[int, Any]) -> str:
    """One score of all kinds of frames against horizon; the two predictions have bands."""
    curves = []
    for name, label, colour, style in _KINDS:
        if hasattr(found[1], name):
            values, intervals = ([getattr(getattr(each, name), score) for each in of.values()] for of in (found, ends))
            curves.append(Curve(label, colour, values, intervals if style == "-" else (), style))
    lowest = min(value for curve in curves for value in curve.values)
    return horizon_chart(title, unit, curves, -0.5 if lowest < 0 else 0, 1.02)


def _masks(evaluation: Evaluation) -> str:
    rows = [
        (title, [Cell(number_text(value, form), "", bounds_text(bounds, form))])
        for title, form, [(value, bounds)] in rows_of(evaluation, MASKS)
    ]
    return page.table(["against masks", "score"], rows) + page.note(_MASKS) if rows else ""
