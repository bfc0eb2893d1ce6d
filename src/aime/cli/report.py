"""`aime report`: everything about a run in one page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aime.cli.arguments import parse
from aime.cli.options import UnseenClips
from aime.cli.progress import counting


@dataclass(frozen=True, kw_only=True)
class ReportOptions(UnseenClips):
    """Write one self-contained HTML page: dreams, scores beside baselines, losses, inner workings and settings."""

    out: Path | None = None
    """The page to write. By default RUN/report.html."""


def main(arguments: list[str]) -> int:
    """Run `aime report` and return the exit status."""
    options = parse(ReportOptions, "report", arguments)
    from aime.inference.report import write_report

    with counting("evaluating") as progress:
        page = write_report(options.run, options.request, options.out, progress)
    print(f"report: {page.absolute()}")
    return 0
