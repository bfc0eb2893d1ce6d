"""The report's section on what each part of the model does, from the inspection in the run directory."""

from __future__ import annotations

from html import escape
from pathlib import Path

from aime.errors import AimeError
from aime.inference.inspection import INSPECTION, Inspection
from aime.inference.inspection.result import DEFINITIONS, Figure, Finding
from aime.inference.report import page
from aime.inference.report.page import Cell
from aime.primitives.interval_text import bounds_text, counted

_KINDS = {"carries weight": "good", "has no effect": "bad"}
"""How a verdict is marked."""

_CAPTION = (
    "Each row replaces what one part hands on, and shows what is lost: dB of reconstruction, nats of the prior, and "
    "skill so many frames ahead. Above 0 the model is worse with the change, = stands where it cannot change. A part "
    "carries weight where the whole interval is at or above 0.3 dB, 1 nat or 0.02 of skill, is weak where the interval "
    "excludes 0, and has no effect where it holds 0."
)


def read_inspection(run: Path, weights: str) -> Inspection | None:
    """The inspection in a run directory; None where there is none, or it is of other weights or another version.

    Args:
        run: the directory.
        weights: the digest of the weights that the report is of.
    """
    path = run / INSPECTION
    if not path.is_file():
        return None
    try:
        found = Inspection.from_json(path.read_text(encoding="utf-8"), str(path))
    except (AimeError, UnicodeDecodeError):
        return None
    return found if found.weights == weights else None


def inspection(found: Inspection | None) -> str:
    """The tables of an inspection, or a sentence on how to make one."""
    if found is None:
        return page.note("These weights have not been inspected: aime inspect RUN measures what each part does.")
    judged = (
        f"On {counted(found.clips, 'clip')} from {counted(found.episodes, 'episode')} of {escape(found.data)} "
        f"({escape(found.unseen)}), {counted(found.context, 'frame')} of context."
    )
    rows = [("model: as it is", [Cell(""), *(_cell(each) for _, each in found.intact)])]
    rows += [(f"{each.part}: {each.change}", _losses(each)) for each in found.findings]
    return (
        page.note(judged)
        + page.table(["change", "verdict", "dB", "nats", *found.measures[2:]], rows)
        + f"<p>{_CAPTION}</p>"
        + _absent(found)
        + _probes(found)
        + page.folded("What these words mean", page.definitions(DEFINITIONS))
    )


def _losses(finding: Finding) -> list[Cell]:
    verdict = Cell(finding.verdict_text, _KINDS.get(finding.verdict, ""))
    return [verdict, *(Cell("=") if each.loss is None else _cell(each.loss) for each in finding.effects)]


def _absent(found: Inspection) -> str:
    if not found.absent:
        return ""
    return page.note(f"Left out, since the model has no such part: {escape(', '.join(found.absent))}.")


def _probes(found: Inspection) -> str:
    if not found.probes:
        return ""
    entries = list(dict.fromkeys(each.entry for each in found.probes))
    rows = [
        (part, [_cell(each.r2) for each in found.probes if each.part == part])
        for part in dict.fromkeys(each.part for each in found.probes)
    ]
    return "<h3>R² of the recorded state, told linearly from a part</h3>" + page.table(["part", *entries], rows)


def _cell(figure: Figure) -> Cell:
    value = "-" if figure.value is None else f"{figure.value:.2f}"
    text, interval = (each.replace("-", "\N{MINUS SIGN}") for each in (value, bounds_text(figure.bounds, ".2f")))
    return Cell(text, "", interval)
