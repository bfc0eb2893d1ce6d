"""`aime report`: one HTML page about a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aime.cli.arguments import parse
from aime.cli.options import UnseenClips
from aime.cli.progress import counting


@dataclass(frozen=True, kw_only=True)
class ReportOptions(UnseenClips):
    """Write one self-contained HTML page: predictions, scores and baselines, losses, attention, and settings."""

    out: Path | None = None
    """File to write. By default RUN/report.html."""


def main(arguments: list[str]) -> int:
    """Run `aime report` and return the exit status."""
    options = parse(ReportOptions, "report", arguments)
    from aime.inference.report import write_report

    with counting("evaluating") as progress:
        page = write_report(options.run, options.request, options.out, progress)
    print(f"report: {page.absolute()}")
    return 0
