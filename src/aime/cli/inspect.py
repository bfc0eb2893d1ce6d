"""`aime inspect`: the effect of every part of a run, by intervention, as a table and a JSON file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from aime.cli.arguments import parse
from aime.cli.options import Evaluated
from aime.cli.progress import counting
from aime.primitives.interval_text import bounds_text, counted

if TYPE_CHECKING:
    from aime.inference.inspection.result import Figure, Inspection

WIDTH = 120
"""Columns of the table where there is no terminal whose width it could have."""


@dataclass(frozen=True, kw_only=True)
class InspectOptions(Evaluated):
    """Measure the effect of every part of a run: replace its output by something simpler, and see what is lost.

    Where the data has a state, also how well it is predicted linearly from each part.
    """

    out: Path | None = None
    """The JSON file to write. By default RUN/inspection.json, which `aime report` shows; none for a bundled run."""
    part: Literal["test", "validation", "all"] = "validation"
    """The half of the unseen episodes: test for reports, validation for choices."""


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
    yield (
        f"{counted(inspection.clips, 'clip')} of {counted(inspection.episodes, 'episode')} of {inspection.data} "
        f"({inspection.unseen}), context {inspection.context}; the loss by each change, above 0 where the model "
        "is worse, with 95 % intervals over episodes; =: cannot change"
    )
    yield _losses(inspection)
    if inspection.absent:
        yield f"left out, since the model has no such part: {', '.join(inspection.absent)}"
    yield "\n".join(f"{part}: {verdict}" for part, verdict in inspection.parts())
    if inspection.probes:
        yield "\nR² of the recorded state, predicted linearly from a part"
        yield _probes(inspection)


def _losses(inspection: Inspection) -> Table:
    table = Table("part and change", "dB", "nats", *inspection.measures[2:], "verdict", box=box.SIMPLE, padding=0)
    for column in table.columns[1:-1]:
        column.justify = "right"
    table.add_row("model\n as it is", *(_cell(each) for _, each in inspection.intact), "")
    for finding in inspection.findings:
        losses = ("=" if each.loss is None else _cell(each.loss) for each in finding.effects)
        table.add_row(f"{finding.part}\n {finding.change}", *losses, finding.verdict_text)
    return table


def _probes(inspection: Inspection) -> Table:
    entries = list(dict.fromkeys(each.entry for each in inspection.probes))
    table = Table("part", *entries, box=box.SIMPLE, padding=0)
    for column in table.columns[1:]:
        column.justify = "right"
    for part in dict.fromkeys(each.part for each in inspection.probes):
        found = {each.entry: each.r2 for each in inspection.probes if each.part == part}
        table.add_row(part, *(_cell(found[entry]) for entry in entries))
    return table


def _cell(figure: Figure) -> str:
    value = "-" if figure.value is None else f"{figure.value:.2f}"
    below = bounds_text(figure.bounds, ".2f")
    return f"{value}\n{below}" if below else value
