"""The report's section on the effect of each part of the model, from the inspection in the run directory."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path

from aime.errors import AimeError
from aime.inference.inspection import INSPECTION, Inspection
from aime.inference.inspection.result import CONTEXT_NOTE, DEFINITIONS, FIGURES, Figure, Finding, digits, title_of
from aime.inference.report import page
from aime.inference.report.page import Cell
from aime.primitives.files import read_small
from aime.primitives.interval_text import bounds_text, counted, number_text

_LONGEST = 2**20
"""Bytes of an inspection that are read: it has about 30,000."""

_KINDS = {"carries weight": "good", "has no effect": "bad"}
"""How a verdict is marked."""

NOT_INSPECTED = "These weights have not been inspected: <code>aime inspect RUN</code> measures the effect of each part."

_CAPTION = (
    "Each row replaces the output of one part and shows the loss: dB of frames seen and dreamt, nats of the prior and "
    "of the ELBO, and skill some frames ahead. Above 0 the model is worse with the change; = means that the measure "
    "cannot change. A part carries weight where the whole interval is at or above 0.3 dB, 1 nat or 0.02 of skill, is "
    "weak where the interval is beyond a hundredth of that on one side of 0, and has no effect otherwise."
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
        found = Inspection.from_json(read_small(path, _LONGEST).decode(), str(path))
    except (AimeError, UnicodeDecodeError):
        return None
    return found if found.weights == weights else None


def inspection(found: Inspection | None) -> str:
    """The tables of an inspection, or a sentence on how to make one."""
    if found is None:
        return page.note(NOT_INSPECTED)
    judged = (
        f"On {counted(found.clips, 'clip')} from {counted(found.episodes, 'episode')} of {escape(found.data)} "
        f"({escape(found.unseen)}), {counted(found.context, 'frame')} of context."
    )
    rows = [(Cell("model: as it is"), [_cell(each, digits(name)) for name, each in found.intact])]
    rows += [(_change(each), _losses(each)) for each in found.findings]
    return (
        page.note(judged)
        + page.table(["change and verdict", *map(title_of, found.measures)], rows)
        + f"<p>{_CAPTION} {CONTEXT_NOTE}</p>"
        + _absent(found)
        + _probes(found)
        + _figures(found)
        + page.folded("Definitions of these measures", page.definitions(DEFINITIONS))
    )


def _change(finding: Finding) -> Cell:
    return Cell(f"{finding.part}: {finding.change}", _KINDS.get(finding.verdict, ""), finding.verdict_text)


def _losses(finding: Finding) -> list[Cell]:
    return [Cell("=") if each.loss is None else _cell(each.loss, digits(each.measure)) for each in finding.effects]


def _absent(found: Inspection) -> str:
    if not found.absent:
        return ""
    return page.note(f"Left out, since the model has no such part: {escape(', '.join(found.absent))}.")


def _probes(found: Inspection) -> str:
    if not found.probes:
        return ""
    entries = list(dict.fromkeys(each.entry for each in found.probes))
    rows = [
        (part, [_cell(each.r2, ".2f") for each in found.probes if each.part == part])
        for part in dict.fromkeys(each.part for each in found.probes)
    ]
    return "<h3>R² of the recorded state, predicted linearly from a part</h3>" + page.table(["part", *entries], rows)


def _figures(found: Inspection) -> str:
    if not found.figures:
        return ""
    rows = [(FIGURES[name].title, [_cell(each, FIGURES[name].form)]) for name, each in found.figures]
    terms = {FIGURES[name].title: FIGURES[name].definition for name, _ in found.figures}
    return (
        "<h3>Figures against masks and tokens</h3>"
        + page.table(["figure", "value"], rows)
        + page.folded("Definitions of these figures", page.definitions(terms))
    )


def _cell(figure: Figure, form: str) -> Cell:
    value = number_text(math.nan if figure.value is None else figure.value, form)
    text, interval = (each.replace("-", "\N{MINUS SIGN}") for each in (value, bounds_text(figure.bounds, form)))
    return Cell(text, "", interval)
