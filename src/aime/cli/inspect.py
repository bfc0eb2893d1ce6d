"""`aime inspect`: the effect of each part of a model, as a table and a JSON file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from aime.cli.arguments import parse
from aime.cli.options import Evaluated
from aime.cli.progress import counting
from aime.primitives.interval_text import bounds_text, counted, number_text

if TYPE_CHECKING:
    from aime.inference.inspection.result import Figure, Inspection

WIDTH = 120
"""Columns of the table without a terminal."""


@dataclass(frozen=True, kw_only=True)
class InspectOptions(Evaluated):
    """Measure the effect of each part of a model: replace its output, and compute the loss of quality.

    If the data has a state, also predict it linearly from each part.
    """

    out: Path | None = None
    """JSON file to write. By default RUN/inspection.json, which `aime report` shows; none for a bundled run."""
    part: Literal["test", "validation", "all"] = "validation"
    """Which held-out episodes: test for reports, validation for choices."""
    clips: int | None = 24
    """Maximum number of clips. The first clip of every episode is used before any second one."""


def main(arguments: list[str]) -> int:
    """Run `aime inspect` and return the exit status."""
    options = parse(InspectOptions, "inspect", arguments)
    from aime.data.sources import is_bundled
    from aime.inference.inspection import INSPECTION, inspect_run

    out = options.out
    if out is None and not is_bundled(options.run):
        out = options.run / INSPECTION
    with counting("inspecting") as progress:
        inspection = inspect_run(options.run, options.request, out, progress)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    for part in _tables(inspection):
        console.print(part, markup=False)
    if out is not None:
        print(f"inspection: {out}")
    return 0


def _tables(inspection: Inspection) -> Iterator[str | Table]:
    from aime.inference.inspection.result import CONTEXT_NOTE, in_decibels

    yield (
        f"{counted(inspection.clips, 'clip')} of {counted(inspection.episodes, 'episode')} of {inspection.data} "
        f"({inspection.unseen}), context {inspection.context}.\nLoss by each replacement, above 0 where the model is "
        "worse, and the ends of its 95 % interval over episodes; = cannot change."
    )
    for of_frames in (True, False):
        yield _losses(inspection, [name for name in inspection.measures if in_decibels(name) == of_frames])
    if inspection.absent:
        yield f"not in this model: {', '.join(inspection.absent)}"
    if any(each.part == "context" for each in inspection.findings):
        yield f"{CONTEXT_NOTE}\n"
    yield "\n".join(f"{part}: {verdict}" for part, verdict in inspection.parts())
    if inspection.probes:
        yield "\nR² of the state, predicted linearly from a part"
        yield _probes(inspection)
    if inspection.figures:
        yield "\nFigures against masks and tokens"
        yield _figures(inspection)


def _losses(inspection: Inspection, measures: Sequence[str]) -> Table:
    """A row of three lines per replacement, with the verdict below it, to fit into 80 columns."""
    from aime.inference.inspection.result import digits, title_of

    names = [title_of(name).replace(" at ", "\nat ").replace(", ", "\n") for name in measures]
    table = _right_aligned("part, replacement,\nverdict", *names)
    intact = (_cell(each, digits(name), "\n") for name, each in inspection.intact if name in measures)
    table.add_row("model\n unchanged", *intact, end_section=True)
    for finding in inspection.findings:
        losses = [
            "=" if each.loss is None else _cell(each.loss, digits(each.measure), "\n")
            for each in finding.effects
            if each.measure in measures
        ]
        if set(losses) != {"="}:
            table.add_row(f"{finding.part}\n {finding.change}\n {finding.verdict_text}", *losses, end_section=True)
    return table


def _figures(inspection: Inspection) -> Table:
    from aime.inference.inspection.result import FIGURES

    table = _right_aligned("", "", "95 % interval")
    for name, figure in inspection.figures:
        shown = FIGURES[name]
        value, _, bounds = _cell(figure, shown.form, "…").partition("\n")
        table.add_row(shown.title, value, bounds)
    return table


def _probes(inspection: Inspection) -> Table:
    entries = list(dict.fromkeys(each.entry for each in inspection.probes))
    table = _right_aligned("part", *entries)
    for part in dict.fromkeys(each.part for each in inspection.probes):
        found = {each.entry: each.r2 for each in inspection.probes if each.part == part}
        table.add_row(part, *(_cell(found[entry], ".2f", "…") for entry in entries))
    return table


def _right_aligned(first: str, *others: str) -> Table:
    table = Table(first, *others, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _cell(figure: Figure, form: str, between: str) -> str:
    """A figure, and below it the ends of its interval."""
    value = number_text(math.nan if figure.value is None else figure.value, form)
    below = bounds_text(figure.bounds, form).replace("…", between)
    return f"{value}\n{below}" if below else value
