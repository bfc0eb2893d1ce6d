"""Record several episodes at once, in processes of their own, because each needs its own GL context."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from aime.data.collect.environment import RENDERING_REMEDY, Environment
from aime.data.collect.plan import Job, plan
from aime.data.collect.recording import Recordable, record_episode
from aime.data.episodes import Episode
from aime.data.shards import Attribute, write_shard
from aime.errors import AimeError

Builder = Callable[[Any], Environment]
"""Makes the environment of a recording."""


def build_environment(recording: Recordable) -> Environment:
    """What `recording.build` makes."""
    return recording.build()


def directories(recordings: Sequence[Recordable], out: Path) -> list[Path]:
    """Where each recording goes: `out` itself if there is one, else a subdirectory of its name each.

    Environments differ in their actions, so two of them cannot share a data set.
    """
    return [out] if len(recordings) == 1 else [out / recording.name for recording in recordings]


def collect(
    recordings: Sequence[Recordable],
    out: str | Path,
    episodes: int,
    workers: int,
    build: Builder = build_environment,
    console: Console | None = None,
) -> int:
    """Record what is missing for every directory to hold episodes 0 to `episodes - 1`, and show the progress.

    Each shard is written whole or not at all, so a kill costs the shards in hand and an interruption the episodes in
    hand; another call with the same arguments goes on.

    Args:
        recordings: one for each environment.
        out: see `directories`.
        episodes: how many of each environment, 1 or more.
        workers: processes to record in, 1 or more.
        build: makes the environment, in the process that records; it must be a function of a module.
        console: where the progress bar goes; the terminal's error stream if not given.

    Returns:
        How many frames had to be recorded; fewer are written if an environment ends its episodes early.

    Raises:
        AimeError: if a directory holds something else, an environment cannot be built, or a shard cannot be written.
        KeyboardInterrupt: if the user interrupts, once all processes have ended.
    """
    places = zip(recordings, directories(recordings, Path(out)), strict=True)
    jobs = [job for recording, place in places for job in plan(recording, place, episodes, workers)]
    if jobs:
        _record(jobs, min(workers, len(jobs)), build, console or Console(stderr=True))
    return sum(job.frames for job in jobs)


def _record(jobs: Sequence[Job], workers: int, build: Builder, console: Console) -> None:
    context = multiprocessing.get_context("spawn")
    stop, frames = context.Event(), context.Value("q", 0)
    pool = ProcessPoolExecutor(workers, context, _start_worker, (stop, frames))
    try:
        with _terminated_like_interrupted(), _bar(console) as bar:
            with _deaf_to_interrupts():  # processes inherit this: the terminal's Ctrl-C is for this process to handle
                futures = [pool.submit(_run, job, build) for job in jobs]
            _follow(futures, bar, sum(job.frames for job in jobs), frames)
    except BrokenProcessPool as error:
        raise AimeError(
            f"a recording process died while it built or rendered {jobs[0].recording.name}; the GL library may be "
            f"broken or memory short (--workers {workers}): use fewer workers, or {RENDERING_REMEDY}"
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _follow(futures: Sequence[Future[None]], bar: Progress, total: int, frames: Any) -> None:
    """Move the bar until all is recorded, or one job fails."""
    task = bar.add_task("recording", total=total)
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=0.1, return_when=FIRST_COMPLETED)
        bar.update(task, completed=frames.value)
        for future in done:
            future.result()


def _bar(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console)


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end things as Ctrl-C does."""
    with _handling(signal.SIGTERM, signal.default_int_handler):
        yield


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    with _handling(signal.SIGINT, signal.SIG_IGN):
        yield


@contextmanager
def _handling(number: signal.Signals, handler: Any) -> Iterator[None]:
    """Handle a signal in another way for a while; only the main thread may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


class _Stopped(Exception):
    """The parent asked the processes to give up what they have in hand."""


@dataclass
class _Worker:
    """What a recording process knows."""

    stop: Any
    frames: Any
    environments: dict[Recordable, Environment] = field(default_factory=dict)

    def environment(self, recording: Recordable, build: Builder) -> Environment:
        """The environment of a recording, built once; only the latest is kept, each holds a GL context."""
        if recording not in self.environments:
            self.environments.clear()
            self.environments[recording] = build(recording)
        return self.environments[recording]

    def count(self, frames: int = 1) -> None:
        """Report frames, and leave if asked to."""
        with self.frames.get_lock():
            self.frames.value += frames
        if self.stop.is_set():
            raise _Stopped


_worker: _Worker | None = None
"""Of this process, if it is one that records."""


def _start_worker(stop: Any, frames: Any) -> None:
    global _worker
    _worker = _Worker(stop, frames)
    # Mesa's software renderer starts a thread per core in every process; here the processes fill the cores.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot tell its processes to end, and they would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _run(job: Job, build: Builder) -> None:
    """Record one shard, in a worker process; if asked to stop, keep the episodes that are whole."""
    assert _worker is not None
    environment = _worker.environment(job.recording, build)
    episodes: list[Episode] = []
    with suppress(_Stopped):
        for number in range(job.first, job.first + job.count):
            episodes.append(record_episode(environment, job.recording, number, _worker.count))
            # the first frame, and those that an early end left out
            _worker.count(job.recording.length - len(episodes[-1]) + 1)
    if episodes:
        attributes = {**job.recording.attributes(), "first_episode": job.first, **_versions()}
        write_shard(replace(job, count=len(episodes)).path, episodes, attributes)


def _versions() -> dict[str, Attribute]:
    """Of the simulator; another version may move bodies a little differently."""
    found: dict[str, Attribute] = {}
    for package in ("dm-control", "mujoco", "gymnasium"):
        try:
            found[f"{package.replace('-', '_')}_version"] = version(package)
        except PackageNotFoundError:
            continue
    return found
