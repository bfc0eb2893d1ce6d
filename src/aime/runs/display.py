"""Display of training progress: a live panel in a terminal, otherwise lines of text."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from aime.runs.schedule import Budget, Progress

LINE_SECONDS = 15.0
"""Interval between two lines without a terminal."""

_REFRESHES_PER_SECOND = 2
_FIGURES_PER_ROW = 2


@dataclass
class Status:
    """The state that displays show; the logbook writes it, a display may read it from another thread."""

    run: Path
    budget: Budget
    activity: str = "preparing"
    """The current activity; empty for training."""
    progress: Progress = field(default_factory=Progress)
    started: Progress = field(default_factory=Progress)
    """The progress at the start of this session: that of the checkpoint it resumed from, or zero."""
    frames_per_second: float | None = None
    figures: dict[str, float] = field(default_factory=dict)
    """The last logged scalars by name."""

    @property
    def share(self) -> float:
        """The completed fraction of the run, in [0, 1]."""
        return self.budget.share(self.progress.step, self.progress.seconds)

    @property
    def seconds_left(self) -> float | None:
        """Remaining seconds at this session's mean speed; None before its first step."""
        if self.budget.minutes is not None:
            return max(0.0, 60 * self.budget.minutes - self.progress.seconds)
        steps = self.progress.step - self.started.step
        if steps <= 0 or self.budget.steps is None:
            return None
        pace = (self.progress.seconds - self.started.seconds) / steps
        return max(0.0, pace * (self.budget.steps - self.progress.step))

    @property
    def position(self) -> str:
        """Progress in the unit of the budget."""
        if self.budget.minutes is not None:
            return f"{self.progress.seconds / 60:.1f} of {self.budget.minutes:g} minutes, step {self.progress.step}"
        return f"step {self.progress.step} of {self.budget.steps}"


class Display(Protocol):
    """Shows a `Status` that another object updates."""

    def start(self) -> None:
        """Start the display."""

    def activity_changed(self) -> None:
        """Show a new activity."""

    def step_taken(self) -> None:
        """Note a step; called at every step, so it must be cheap."""

    def stop(self) -> None:
        """Show the last state and end the display."""


def make_display(status: Status, console: Console) -> Display:
    """The live panel if the console is a terminal that can move its cursor, otherwise plain lines."""
    if console.is_terminal and not console.is_dumb_terminal:
        return LivePanel(status, console)
    return PlainLines(status, console)


class PlainLines:
    """Prints a line for each activity, for the first step, and every 15 seconds."""

    def __init__(self, status: Status, console: Console) -> None:
        self._status, self._console = status, console
        self._last_line = -math.inf

    def start(self) -> None:
        """Print the activity."""
        self.activity_changed()

    def activity_changed(self) -> None:
        """Print the activity."""
        self._print(f"{self._status.activity} …")

    def step_taken(self) -> None:
        """Print a line if one is due."""
        now = time.monotonic()
        if now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            self._print(summary(self._status))

    def stop(self) -> None:
        """Do nothing: the last line stays."""

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class LivePanel:
    """A panel with progress, speed and the latest scalars; a thread redraws it twice a second."""

    def __init__(self, status: Status, console: Console) -> None:
        self._status = status
        self._spinner = Spinner("dots")
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=_REFRESHES_PER_SECOND, transient=False
        )

    def start(self) -> None:
        """Draw the panel."""
        self._live.start(refresh=True)

    def activity_changed(self) -> None:
        """Redraw at once."""
        self._live.refresh()

    def step_taken(self) -> None:
        """Do nothing: the thread redraws."""

    def stop(self) -> None:
        """Draw the last state and release the terminal."""
        self._live.stop()

    def _render(self) -> RenderableType:
        status = self._status
        figures = dict(status.figures)  # the training thread may replace it while this one draws
        self._spinner.update(text=Text(f"{status.activity} …" if status.activity else "training"))
        rows: list[RenderableType] = [self._spinner]
        if status.progress.step:
            bar = Table.grid(padding=(0, 2))
            bar.add_row(ProgressBar(total=1.0, completed=status.share, width=30), Text(pace(status)))
            rows.append(bar)
        if figures:
            rows.append(_figures_table(figures))
        return Panel(Group(*rows), title=Text(f"aime train  {status.run}"), title_align="left")


def summary(status: Status) -> str:
    """One line: progress, speed, the activity if it is not training, and the loss."""
    loss = [f"loss {format_figure(status.figures['loss'])}"] if "loss" in status.figures else []
    activity = [status.activity] if status.activity else []
    return " · ".join([pace(status), *activity, *loss])


def pace(status: Status) -> str:
    """Percentage, position, frames per second and remaining time."""
    parts = [f"{status.share:.0%}", status.position]
    if status.frames_per_second is not None and not status.activity:
        parts.append(f"{status.frames_per_second:.0f} frames/s")
    if status.seconds_left is not None:
        parts.append(f"{format_duration(status.seconds_left)} left")
    return " · ".join(parts)


def format_duration(seconds: float) -> str:
    """Seconds as m:ss, or h:mm:ss from one hour."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def format_figure(value: float) -> str:
    """Four significant digits, of nearly constant width."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size != 0 and not 1e-3 <= size < 1e7:
        return f"{value:.3e}"
    decimals = 4 if size < 1 else max(0, 3 - math.floor(math.log10(size)))
    return f"{value:.{decimals}f}"


def _figures_table(figures: dict[str, float]) -> Table:
    table = Table.grid(padding=(0, 2))
    for _ in range(_FIGURES_PER_ROW):
        table.add_column(style="dim")
        table.add_column(justify="right", min_width=10)
    cells = [Text(cell) for name, value in figures.items() for cell in (name, format_figure(value))]
    width = 2 * _FIGURES_PER_ROW
    for start in range(0, len(cells), width):
        table.add_row(*cells[start : start + width])
    return table
