"""Reading RUN/metrics.jsonl: the figures that training logged."""

from __future__ import annotations

import json
from pathlib import Path

from aime.errors import AimeError

METRICS = "metrics.jsonl"

Record = dict[str, float]
"""The figures of one logged step, by name."""

Series = tuple[list[float], list[float]]
"""Steps, and the values at them."""


def read_log(run: Path) -> list[Record]:
    """The records of a run by rising step; none if nothing was logged.

    A run that was killed and resumed has logged some steps twice: the later records count. A last line that a kill
    cut short is dropped.

    Raises:
        AimeError: if another line is no JSON object with a step, naming the line.
    """
    path = run / METRICS
    if not path.is_file():
        return []
    records: list[Record] = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        record = _parse(line)
        if record is None:
            if number == len(lines):
                break
            found = f"{path}: line {number}: found {line[:60]!r}"
            raise AimeError(f"{found}, expected a JSON object with a step: remove the line")
        while records and records[-1]["step"] >= record["step"]:
            records.pop()
        records.append(record)
    return records


def series(records: list[Record], name: str) -> Series:
    """The steps at which a figure was logged, and its values."""
    found = [(record["step"], record[name]) for record in records if name in record]
    return [step for step, _ in found], [value for _, value in found]


def names(records: list[Record]) -> list[str]:
    """The names of all figures, in the order in which they first appear."""
    return list(dict.fromkeys(name for record in records for name in record))


def _parse(line: str) -> Record | None:
    try:
        content = json.loads(line)
    except ValueError:
        return None
    if not isinstance(content, dict) or not isinstance(content.get("step"), int | float):
        return None
    return {name: float(value) for name, value in content.items() if isinstance(value, int | float)}
