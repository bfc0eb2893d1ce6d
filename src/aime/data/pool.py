"""Work for several processes at once: a progress bar with the time left, and an end that leaves no process behind."""

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
    """The parent asked the processes to give up what they have in hand."""


@dataclass(frozen=True)
class Labour:
    """How a kind of work is shown and what is said when one of its processes dies.

    Attributes:
        verb: stands before the bar, such as "recording".
        unit: of what is counted, such as "frames".
        death: the one line for the user when a process dies of something other than an exception.
    """

    verb: str
    unit: str
    death: str


def work(
    jobs: Sequence[Job], run: Callable[[Job], None], workers: int, total: int, labour: Labour, console: Console
) -> None:
    """Run every job in processes of their own, and show the progress.

    A job reports with `count`. When one fails, or the user interrupts, the others are asked to stop: `count` raises
    `Stopped` in them. Processes end with their parent, also when that is killed.

    Args:
        jobs: what to do; each must pickle.
        run: does one job in a worker process; a function of a module.
        workers: processes, 1 or more.
        total: what all counts will sum up to.
        labour: words for the bar and for a death.
        console: where the bar goes.

    Raises:
        AimeError: what a job raises, or `labour.death` if a process dies.
        KeyboardInterrupt: if the user interrupts, once all processes have ended.
    """
    context = multiprocessing.get_context("spawn")
    stop, counter = context.Event(), context.Value("q", 0)
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker, (stop, counter))
    try:
        with handled(), progress_bar(console, labour.unit) as bar:
            with blocked_in_children():
                futures = [pool.submit(run, job) for job in jobs]
            _follow(futures, bar, labour.verb, total, counter)
    except BrokenProcessPool as error:
        raise AimeError(labour.death) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def count(amount: int = 1) -> None:
    """Report that so much of the work is done; outside of a worker process nobody listens.

    Raises:
        Stopped: if the parent has asked the processes to end.
    """
    if _worker is None:
        return
    with _worker.counter.get_lock():
        _worker.counter.value += amount
    if _worker.stop.is_set():
        raise Stopped


def progress_bar(console: Console, unit: str) -> Progress:
    """A bar with count, elapsed time and time left."""
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


def _follow(futures: Sequence[Future[None]], bar: Progress, verb: str, total: int, counter: Any) -> None:
    """Move the bar until all is done, or one job fails."""
    task = bar.add_task(verb, total=total)
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=0.1, return_when=FIRST_COMPLETED)
        bar.update(task, completed=counter.value)
        for future in done:
            future.result()


@dataclass(frozen=True)
class _Worker:
    """How a worker process hears of its parent, and is heard."""

    stop: Any
    counter: Any


_worker: _Worker | None = None
"""Of this process, if it is one that works for another."""


def _start_worker(stop: Any, counter: Any) -> None:
    global _worker
    _worker = _Worker(stop, counter)
    # Mesa's software renderer starts a thread per core in every process; here the processes fill the cores.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    threading.Thread(target=when_parent_ends, args=(lambda: os._exit(1),), daemon=True).start()


def when_parent_ends(act: Callable[[], None]) -> None:
    """Wait until the process that started this one has ended, and act: a killed parent cannot tell its processes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        act()
