"""A progress bar on stderr for work that tells how much of it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn

SILENCE = 15.0
"""Seconds between two lines where there is no terminal."""


@contextmanager
def counting(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar while the context lasts, on a terminal only; it is told (done, total), as often as one likes."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def stages() -> Iterator[Callable[[str, int, int, Mapping[str, float]], None]]:
    """Show work of several stages while the context lasts: a bar for each on a terminal, else now and then a line.

    It is told (stage, done, total, figures), as often as one likes.
    """
    console = Console(stderr=True)
    known: dict[str, TaskID] = {}
    said: dict[str, float] = {}
    with Progress(
        *Progress.get_default_columns(),
        TextColumn("{task.fields[figures]}"),
        console=console,
        disable=not console.is_terminal,
    ) as bar:

        def told(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
            text = "  ".join(f"{name} {value:.3g}" for name, value in figures.items())
            if stage not in known:
                known[stage] = bar.add_task(stage, total=total, figures="")
            bar.update(known[stage], completed=done, total=total, figures=text)
            if not console.is_terminal and (time.monotonic() - said.get(stage, -SILENCE) >= SILENCE or done == total):
                said[stage] = time.monotonic()
                console.print(f"{stage}: {done} of {total}  {text}", highlight=False, soft_wrap=True)

        yield told
