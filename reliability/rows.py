"""What a test found: JSON lines that are written as the cases finish, and the table made of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

BEGIN, END = "<!-- measured -->", "<!-- end of what was measured -->"


@dataclass(frozen=True)
class Row:
    """One case.

    Attributes:
        part: the test that the case belongs to.
        case: its name, unique within the part and the seed.
        seed: of the campaign.
        faults: what is wrong, a line each; none where the promise holds.
        seconds: that the case took.
        repeat: the command that runs this case alone.
        counts: how many of what it adds to the table, such as `{"kills": 4}`; one case by default.
        commit: of the sources that were tried.
    """

    part: str
    case: str
    seed: int
    faults: tuple[str, ...] = ()
    seconds: float = 0.0
    repeat: str = ""
    counts: dict[str, int] = field(default_factory=lambda: {"cases": 1})
    commit: str = "unknown"


class Rows:
    """The rows of a campaign in a file; cases that it holds already are not run again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._rows = list(read_rows(path)) if path.exists() else []

    def has(self, part: str, case: str, seed: int) -> bool:
        """Whether a case has been run."""
        return any((row.part, row.case, row.seed) == (part, case, seed) for row in self._rows)

    def latest(self) -> list[Row]:
        """The last row of every case."""
        return list({(row.part, row.case, row.seed): row for row in self._rows}.values())

    def add(self, row: Row) -> None:
        """Keep a row, and say what is wrong in it."""
        self._rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        state = "ok" if not row.faults else "FAILED"
        print(f"{row.part} · {row.case} · {row.seconds:.1f} s · {state}", flush=True)
        for fault in row.faults:
            print(f"    {fault}", flush=True)
        if row.faults:
            print(f"    repeat it: {row.repeat}", flush=True)


def read_rows(path: Path) -> Iterable[Row]:
    """The rows of a file; a last line that a kill cut short is left out."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            content = json.loads(line)
        except ValueError:
            continue
        yield Row(**{**content, "faults": tuple(content["faults"])})


def table(rows: Iterable[Row], titles: dict[str, str], full: dict[str, int]) -> str:
    """Test | count | outcome, in Markdown, in the order of the titles; a count below the full one names both."""
    lines = ["| test | count | outcome |", "|---|---|---|"]
    found = list(rows)
    for part, title in titles.items():
        mine = [row for row in found if row.part == part]
        if not mine:
            lines.append(f"| {title} | 0 of {full[part]} | not tried |")
            continue
        counts: dict[str, int] = {}
        for row in mine:
            for name, count in row.counts.items():
                counts[name] = counts.get(name, 0) + count
        bad = [row for row in mine if row.faults]
        counted = ", ".join(
            f"{count} {name}" if count >= full[part] else f"{count} of {full[part]} {name}"
            for name, count in counts.items()
        )
        lines.append(f"| {title} | {counted} | {_outcome(bad)} |")
    return "\n".join(lines)


def _outcome(bad: list[Row]) -> str:
    if not bad:
        return "all passed"
    named = "; ".join(f"`{row.case}`: {_short(row.faults[0])}" for row in bad[:12])
    more = f"; {len(bad) - 12} more" if len(bad) > 12 else ""
    return f"**{len(bad)} failed**: {named}{more}"


def _short(text: str, most: int = 110) -> str:
    plain = " ".join(text.replace("|", "/").replace("`", "'").split())
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def replace_table(path: Path, text: str) -> None:
    """Put a text between the two marks of a Markdown file.

    Raises:
        ValueError: if the file lacks a mark.
    """
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path}: lacks the marks {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
