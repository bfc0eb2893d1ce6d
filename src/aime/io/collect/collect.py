"""Record several episodes at once, in processes of their own, because each needs its own GL context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console

from aime.data.episodes import Episode
from aime.data.pool import Stopped, WorkLabels, count, run_jobs
from aime.data.shards import Attribute, write_shard
from aime.io.collect.environment import RENDERING_REMEDY, Environment
from aime.io.collect.plan import Job, plan
from aime.io.collect.recording import Recordable, record_episode

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
    death = (
        f"a recording process died while it built or rendered {jobs[0].recording.name}; the GL library may be "
        f"broken or memory short (--workers {workers}): use fewer workers, or {RENDERING_REMEDY}"
    )
    total = sum(job.frames for job in jobs)
    run_jobs(jobs, partial(_run, build=build), workers, total, WorkLabels("recording", "frames", death), console)


_environments: dict[Recordable, Environment] = {}
"""Of this process; only the latest is kept, each holds a GL context."""


def _environment(recording: Recordable, build: Builder) -> Environment:
    """The environment of a recording, built once."""
    if recording not in _environments:
        _environments.clear()
        _environments[recording] = build(recording)
    return _environments[recording]


def _run(job: Job, build: Builder) -> None:
    """Record one shard, in a worker process; if asked to stop, keep the episodes that are whole."""
    environment = _environment(job.recording, build)
    episodes: list[Episode] = []
    with suppress(Stopped):
        for number in range(job.first, job.first + job.count):
            episodes.append(record_episode(environment, job.recording, number, count))
            # the first frame, and those that an early end left out
            count(job.recording.length - len(episodes[-1]) + 1)
    if episodes:
        attributes = {**job.recording.attributes(), **environment.notes(), "first_episode": job.first, **_versions()}
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
