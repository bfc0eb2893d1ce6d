"""`aime report`: everything about a run in one page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from aime.cli.arguments import parse
from aime.cli.progress import counting


@dataclass(frozen=True)
class ReportOptions:
    """Write one self-contained HTML page: dreams, scores beside baselines, losses, inner workings and settings."""

    run: tyro.conf.Positional[Path]
    """The run directory that `aime train` wrote, or bundled:cartpole."""
    out: Path | None = None
    """The page to write. By default RUN/report.html."""
    data: str | None = None
    """A directory of shards, one shard, or bundled:NAME; several by commas. By default the run's own data. Episodes
    that the run was trained on are left out, wherever they lie."""
    part: Literal["test", "validation", "all"] = "test"
    """The half of the unseen episodes: test for reports, validation for choices."""
    context: int = 5
    """Frames that the model sees."""
    horizon: int = 45
    """Frames that it then predicts."""
    device: Literal["auto", "cpu", "cuda"] = "auto"


def main(arguments: list[str]) -> int:
    """Run `aime report` and return the exit status."""
    options = parse(ReportOptions, "report", arguments)
    from aime.inference.report import write_report
    from aime.inference.request import EvaluationRequest

    request = EvaluationRequest(
        data=options.data,
        part=options.part,
        context=options.context,
        horizon=options.horizon,
        device=options.device,
    )
    with counting("evaluating") as progress:
        page = write_report(options.run, request, options.out, progress)
    print(f"report: {page.absolute()}")
    return 0
