"""The report of a run: one self-contained page."""

from __future__ import annotations

from pathlib import Path

from aime.data.sources import is_bundled
from aime.errors import AimeError
from aime.inference.evaluate import ProgressCallback
from aime.inference.report.layout import lay_out
from aime.inference.report.material import gather
from aime.inference.request import EvaluationRequest
from aime.primitives.files import write_atomically
from aime.world_model.bundled import locate

__all__ = ["REPORT", "write_report"]

REPORT = "report.html"
"""The page in a run directory."""


def write_report(
    run: str | Path,
    request: EvaluationRequest | None = None,
    out: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> Path:
    """Write a page with a run's predictions, scores, diagnostics, losses and settings; it needs no other file.

    Args:
        run: the run directory.
        request: as for `evaluate_run`.
        out: the page, RUN/report.html by default; one that is there is replaced.
        progress: called with how many clips are evaluated, and how many there are. Nothing is evaluated where
            RUN/evaluation.json holds the evaluation of the same weights on the same data.

    Returns:
        The path of the page.

    Raises:
        AimeError: if `run` is no run or its log is damaged, if the data is missing, damaged, too short or does not fit
            the model, or if the page cannot be written.
    """
    if out is None:
        _refuse_installed(run)
    out = Path(run) / REPORT if out is None else Path(out)
    material = gather(run, EvaluationRequest() if request is None else request, progress)
    write_atomically(out, lay_out(material).encode())
    return out


def _refuse_installed(run: str | Path) -> None:
    if is_bundled(run):
        report = locate(run) / REPORT
        raise AimeError(
            f"{run}: comes with its report, {report}; expected a place for another: open that, or give --out"
        )
