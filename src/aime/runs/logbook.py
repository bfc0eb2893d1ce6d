"""Logging of a run: JSON lines and TensorBoard files, and the display."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from rich.console import Console

from aime.primitives.files import unwritable, write_atomically
from aime.primitives.ranks import rank
from aime.runs.display import Status, format_duration, make_display
from aime.runs.schedule import JOINT, Budget, PhaseName, Progress

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_FLUSH_SECONDS = 10
"""A kill loses at most this much of TensorBoard's log, and nothing of the JSON lines."""


class Logbook:
    r"""Writes RUN/metrics.jsonl and RUN/tensorboard, and displays the run while it is open; only on the first rank.

    metrics.jsonl holds one JSON object per logged step: step, seconds, frames, frames_per_second (since the previous
    logged step), then the scalars by name. A scalar that is not finite is null there and absent from TensorBoard.
    RUN/dynamics_finetuning.jsonl holds the steps of that phase, counted from 1: step, seconds, then the scalars.

    Example:
        >>> import tempfile
        >>> run = Path(tempfile.mkdtemp())
        >>> with Logbook(run, Budget(steps=2, minutes=None), console=Console(quiet=True)) as logbook:
        ...     logbook.log("joint", Progress(step=1, frames=256, seconds=0.5), {"loss": 3.0})
        >>> (run / "metrics.jsonl").read_text()
        '{"step": 1, "seconds": 0.5, "frames": 256, "frames_per_second": 512.0, "loss": 3.0}\n'
    """

    def __init__(self, run: Path, budget: Budget, *, console: Console | None = None) -> None:
        """A logbook that is not open yet.

        Args:
            run: the run directory.
            budget: the length of the run, for progress and remaining time.
            console: for the display; standard output if None.
        """
        self._run = run
        self._writes = rank() == 0
        self._console = (console or Console()) if self._writes else Console(quiet=True, force_terminal=False)
        self._status = Status(run, budget)
        self._display = make_display(self._status, self._console)
        self._logged = Progress()
        self._writer: SummaryWriter | None = None
        self._skipped: dict[str, int] = {}

    def path(self, phase: PhaseName) -> Path:
        """The file of a phase's JSON lines."""
        return self._run / ("metrics.jsonl" if phase == JOINT else f"{phase}.jsonl")

    def __enter__(self) -> Logbook:
        """Start the display."""
        self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the files and the display; print a summary, unless an error ended the run."""
        self._display.stop()
        if self._writer is not None:
            self._writer.close()
        if kind is None:
            done = self._status.progress
            self.print_line(f"{self._run}: {done.step} steps, {done.frames} frames in {format_duration(done.seconds)}")

    def print_line(self, line: str) -> None:
        """Print a line."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show_activity(self, activity: str) -> None:
        """Show an activity, such as "unpacking data", until the next step."""
        self._status.activity = activity
        self._display.activity_changed()

    def begin(self, phase: PhaseName, progress: Progress, skipped: Mapping[str, int]) -> None:
        """Start or resume a phase; lines of its log after `progress` are removed, since their steps are repeated.

        Args:
            phase: that starts or resumes.
            progress: at its start.
            skipped: number of its skipped steps so far, by cause.

        Raises:
            AimeError: if the log cannot be rewritten.
        """
        if phase == JOINT:
            self._status.progress = self._status.started = self._logged = progress
        self._skipped = dict(skipped)
        self._drop_after(self.path(phase), progress.within(phase)[0])

    def tick(self, progress: Progress, activity: str = "") -> None:
        """Update the display after a step of training or of another activity; cheap."""
        self._status.progress = progress
        self._status.activity = activity
        self._display.step_taken()

    def log(self, phase: PhaseName, progress: Progress, figures: Mapping[str, float]) -> None:
        """Log the scalars of a step.

        Args:
            phase: of the step.
            progress: after the step.
            figures: scalars by name, such as "loss" or "elbo/kl_z", on the host.

        Raises:
            AimeError: if the disk is full or the log cannot be written.
        """
        self._status.progress, self._status.figures = progress, dict(figures)
        head = {"step": progress.within(phase)[0], "seconds": round(progress.seconds, 3)}
        if phase == JOINT:
            seconds = progress.seconds - self._logged.seconds
            rate = (progress.frames - self._logged.frames) / seconds if seconds > 0 else math.nan
            self._status.frames_per_second = rate if math.isfinite(rate) else None
            self._logged = progress
            head["frames"] = progress.frames
            figures = {"frames_per_second": round(rate, 1), **figures}
        self._write(self.path(phase), head, figures)

    def report_skipped(self, step: int, by_cause: Mapping[str, int]) -> None:
        """Print how many steps were skipped since the last call.

        Args:
            step: the last step.
            by_cause: number of skipped steps of the whole phase, by cause.
        """
        for cause, count in by_cause.items():
            if (new := count - self._skipped.get(cause, 0)) > 0:
                steps = "a step" if new == 1 else f"{new} steps"
                self.print_line(f"step {step}: skipped {steps}, {cause} was not finite ({count} times in this run)")
        self._skipped = dict(by_cause)

    def add_image(self, step: int, name: str, image: UInt8[np.ndarray, "H W 3"]) -> None:
        """Add a picture, 0 to 255, to TensorBoard."""
        self._tensorboard().add_image(name, image, step, dataformats="HWC")

    def _write(self, path: Path, head: Mapping[str, float], figures: Mapping[str, float]) -> None:
        if not self._writes:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps({**head, **finite}) + "\n")
            for name, value in finite.items():
                if value is not None:
                    self._tensorboard().add_scalar(name, value, head["step"])
        except OSError as error:
            raise unwritable(path, error) from error

    def _drop_after(self, path: Path, step: int) -> None:
        """Remove the lines after a step, and an incomplete last line."""
        if not self._writes or not path.is_file():
            return
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line + "\n" for line in lines if (at := _step_of(line)) is not None and at <= step]
        write_atomically(path, "".join(kept).encode())

    def _tensorboard(self) -> SummaryWriter:
        """Created at first use: the import takes seconds, and `purge_step` is known only after resuming."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(
                str(self._run / "tensorboard"), purge_step=self._status.started.step + 1, flush_secs=_FLUSH_SECONDS
            )
        return self._writer


def _step_of(line: str) -> int | None:
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) else None
