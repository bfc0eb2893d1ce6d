"""Progress bars on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn

SECONDS_BETWEEN_LINES = 15.0
"""Without a terminal."""


@contextmanager
def counting(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar, on a terminal only; the callback takes (done, total)."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def stages() -> Iterator[Callable[[str, int, int, Mapping[str, float]], None]]:
    """A progress bar for each stage on a terminal, otherwise a line every 15 seconds.

    The callback takes (stage, done, total, figures), where figures are values to show by name.
    """
    console = Console(stderr=True)
    tasks: dict[str, TaskID] = {}
    printed: dict[str, float] = {}
    with Progress(
        *Progress.get_default_columns(),
        TextColumn("{task.fields[figures]}"),
        console=console,
        disable=not console.is_terminal,
    ) as bar:

        def update(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
            text = "  ".join(f"{name} {value:.3g}" for name, value in figures.items())
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total, figures="")
            bar.update(tasks[stage], completed=done, total=total, figures=text)
            due = time.monotonic() - printed.get(stage, -SECONDS_BETWEEN_LINES) >= SECONDS_BETWEEN_LINES
            if not console.is_terminal and (due or done == total):
                printed[stage] = time.monotonic()
                console.print(f"{stage}: {done} of {total}  {text}", highlight=False, soft_wrap=True)

        yield update
