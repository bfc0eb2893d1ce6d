"""A pool of worker processes with a progress bar, in which no process outlives its parent."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from aime.errors import AimeError
from aime.primitives.signals import blocked_in_children, handled

Job = TypeVar("Job")


class Stopped(Exception):
    """Raised in a worker process when the parent ends the work."""


@dataclass(frozen=True)
class WorkLabels:
    """Texts for the progress bar and for an error.

    Attributes:
        verb: before the bar, such as "recording".
        unit: of the counts, such as "frames".
        death: the error message if a process dies other than by an exception.
    """

    verb: str
    unit: str
    death: str


def run_jobs(
    jobs: Sequence[Job], run: Callable[[Job], None], workers: int, total: int, labels: WorkLabels, console: Console
) -> None:
    """Run jobs in worker processes and show a progress bar.

    A job reports progress with `count`. When a job fails or the user interrupts, `count` raises `Stopped` in the
    others. Worker processes end with their parent, also if it is killed.

    Args:
        jobs: arguments of `run`; each must pickle.
        run: a module-level function, called in a worker process.
        workers: number of processes, 1 or more.
        total: the sum of all counts.
        labels: texts for the bar and for an error.
        console: for the bar.

    Raises:
        AimeError: as raised by a job, or `labels.death` if a process dies.
        KeyboardInterrupt: if the user interrupts, after all processes have ended.
    """
    context = multiprocessing.get_context("spawn")
    stop, counter = context.Event(), context.Value("q", 0)
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker, (stop, counter))
    try:
        with handled(), progress_bar(console, labels.unit) as bar:
            with blocked_in_children():
                futures = [pool.submit(run, job) for job in jobs]
            _show_progress(futures, bar, labels.verb, total, counter)
    except BrokenProcessPool as error:
        raise AimeError(labels.death) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def count(amount: int = 1) -> None:
    """Report progress; does nothing outside a worker process.

    Raises:
        Stopped: if the parent ends the work.
    """
    if _worker is None:
        return
    with _worker.counter.get_lock():
        _worker.counter.value += amount
    if _worker.stop.is_set():
        raise Stopped


def progress_bar(console: Console, unit: str) -> Progress:
    """A progress bar with count, elapsed time and remaining time."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console)


def _show_progress(futures: Sequence[Future[None]], bar: Progress, verb: str, total: int, counter: Any) -> None:
    """Update the bar until all jobs are done or one fails."""
    task = bar.add_task(verb, total=total)
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=0.1, return_when=FIRST_COMPLETED)
        bar.update(task, completed=counter.value)
        for future in done:
            future.result()


@dataclass(frozen=True)
class _Worker:
    """The shared objects by which a worker process communicates with its parent."""

    stop: Any
    counter: Any


_worker: _Worker | None = None
"""Set in worker processes."""


def _start_worker(stop: Any, counter: Any) -> None:
    global _worker
    _worker = _Worker(stop, counter)
    # Mesa's software renderer would start a thread per core in every process
    os.environ.setdefault("LP_NUM_THREADS", "0")
    threading.Thread(target=when_parent_ends, args=(lambda: os._exit(1),), daemon=True).start()


def when_parent_ends(act: Callable[[], None]) -> None:
    """Wait until the parent process has ended, even if it was killed, then call `act`."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        act()
