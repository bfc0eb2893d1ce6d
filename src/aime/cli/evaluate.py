"""`aime evaluate`: scores of predictions, as a JSON file and a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from aime.cli.arguments import parse
from aime.cli.options import Evaluated
from aime.cli.progress import counting
from aime.primitives.interval_text import bounds_text, counted, number_text

if TYPE_CHECKING:
    from aime.inference.evaluation import Evaluation
    from aime.primitives.intervals import Bounds

Columns = Sequence[tuple[str, str, str]]
"""Header, place (see `aime.inference.score_rows.Row`) and format of each score of a table."""

_FRAMES: Columns = (
    ("skill", "horizons.*.skill", ".2f"),
    ("SSIM", "horizons.*.ssim", ".3f"),
    ("PSNR, dB", "horizons.*.psnr", ".1f"),
    ("best of {}", "best_of.*.psnr", ".1f"),
    ("persistence", "baselines.persistence.*.psnr", ".1f"),
    ("mean image", "baselines.mean_image.*.psnr", ".1f"),
)
_STATES: Columns = (
    ("R²", "states.*.r2", ".2f"),
    ("error", "states.*.error", ".2f"),
    ("persistence", "states.*.persistence", ".2f"),
    ("mean", "states.*.mean", ".2f"),
)
_BODY: Columns = (
    ("F1", "foreground.horizons.*.likeliest.f1", ".2f"),
    ("persistence", "foreground.horizons.*.persistence.f1", ".2f"),
    ("recon-\nstruction", "foreground.horizons.*.reconstruction.f1", ".2f"),
    ("R²", "read_states.horizons.*.likeliest.r2", ".2f"),
    ("persistence", "read_states.horizons.*.persistence.r2", ".2f"),
    ("true\nframes", "read_states.horizons.*.true_frames.r2", ".2f"),
)


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Evaluated):
    """Compute scores of a run's predictions on held-out episodes, per horizon, with 95 % intervals.

    PSNR, SSIM, skill and foreground F1; the error of the state, if the data has one.
    """

    out: Path
    """The JSON file to write."""


def main(arguments: list[str]) -> int:
    """Run `aime evaluate` and return the exit status."""
    options = parse(EvaluateOptions, "evaluate", arguments)
    from aime.inference.evaluate import evaluate_run

    with counting("evaluating") as progress:
        evaluation = evaluate_run(options.run, options.request, options.out, progress)
    console = Console(highlight=False)
    for part in _tables(evaluation):
        console.print(part, markup=False)
    print(f"scores: {options.out}")
    return 0


def _tables(evaluation: Evaluation) -> Iterator[str | Table]:
    """The tables of an evaluation; each score has its interval below it or in the next column."""
    yield heading(evaluation)
    yield _by_horizon(evaluation, _FRAMES)
    yield _overall(evaluation)
    if evaluation.states:
        yield "state: R², and error in standard deviations of the data"
        yield _by_horizon(evaluation, _STATES)
    share = f"; {evaluation.foreground.share:.1%} of the pixels" if evaluation.foreground else ""
    yield f"foreground F1: scene from {evaluation.foreground_from}{share}"
    yield f"state read from frames (R²): {evaluation.state_reader}"
    if evaluation.foreground or evaluation.read_states:
        yield _by_horizon(evaluation, _BODY)


def heading(evaluation: Evaluation) -> str:
    """The evaluated clips, and what the intervals are."""
    one = evaluation.episodes == 1
    intervals = "one episode: no intervals" if one else "95 % intervals over episodes below each score"
    return (
        f"{counted(evaluation.clips, 'clip')} of {counted(evaluation.episodes, 'episode')} of {evaluation.data} "
        f"({evaluation.unseen}), context {evaluation.context}; {intervals}"
    )


def _by_horizon(evaluation: Evaluation, columns: Columns) -> Table:
    """Scores at a few horizons."""
    from aime.inference.score_rows import figure_at, horizons_of

    headers = (name.format(evaluation.best_of_samples) for name, _, _ in columns)
    table = Table("ahead", *headers, box=box.SIMPLE, padding=0)
    for column in table.columns:
        column.justify = "right"
    for ahead in horizons_of(evaluation):
        cells = (
            _cell(figure_at(evaluation, place, ahead), figure_at(evaluation.intervals, place, ahead), form)
            for _, place, form in columns
        )
        table.add_row(str(ahead), *cells)
    return table


def _overall(evaluation: Evaluation) -> Table:
    """Scores over all frames."""
    from aime.inference.score_rows import MASKS, OVERALL, SHARPNESS, rows_of

    table = Table(box=None, show_header=False, padding=(0, 1))
    for justify in ("left", "right", "left"):
        table.add_column(justify=justify)
    for title, form, [(value, bounds)] in rows_of(evaluation, OVERALL + SHARPNESS + MASKS):
        table.add_row(title, number_text(value, form), bounds_text(bounds, form))
    return table


def _cell(value: float | None, bounds: Bounds | None, form: str) -> str:
    shown, below = number_text(math.nan if value is None else value, form), bounds_text(bounds, form)
    return f"{shown}\n{below}" if below else shown
