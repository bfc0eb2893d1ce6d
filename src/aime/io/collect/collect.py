"""Parallel recording. Each process has its own GL context."""

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
"""Creates the environment of a recording."""


def build_environment(recording: Recordable) -> Environment:
    """The environment of a recording."""
    return recording.build()


def directories(recordings: Sequence[Recordable], out: Path) -> list[Path]:
    """The directory of each recording: `out` if there is one recording, otherwise a subdirectory per recording.

    Environments differ in their actions and cannot share a data set.
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
    """Record the missing episodes of 0 to `episodes - 1` in every directory, and show the progress.

    A kill loses the shards that are being recorded, an interruption the current episodes. Another call with the same
    arguments continues.

    Args:
        recordings: one per environment.
        out: see `directories`.
        episodes: number per environment, 1 or more.
        workers: number of processes, 1 or more.
        build: creates the environment in the recording process; a module-level function.
        console: of the progress bar; stderr by default.

    Returns:
        The number of frames to record; fewer are written if episodes end early.

    Raises:
        AimeError: if a directory has other content, an environment cannot be built, or a shard cannot be written.
        KeyboardInterrupt: after an interruption, when all processes have ended.
    """
    places = zip(recordings, directories(recordings, Path(out)), strict=True)
    jobs = [job for recording, place in places for job in plan(recording, place, episodes, workers)]
    if jobs:
        _record(jobs, min(workers, len(jobs)), build, console or Console(stderr=True))
    return sum(job.frames for job in jobs)


def _record(jobs: Sequence[Job], workers: int, build: Builder, console: Console) -> None:
    death = (
        f"a recording process crashed while it built or rendered {jobs[0].recording.name}; the GL library may be "
        f"broken, or there is too little memory (--workers {workers}): use fewer workers, or {RENDERING_REMEDY}"
    )
    total = sum(job.frames for job in jobs)
    run_jobs(jobs, partial(_run, build=build), workers, total, WorkLabels("recording", "frames", death), console)


_environments: dict[Recordable, Environment] = {}
"""Environment of this process. Only the latest is kept, because each has a GL context."""


def _environment(recording: Recordable, build: Builder) -> Environment:
    """The environment of a recording, built once."""
    if recording not in _environments:
        _environments.clear()
        _environments[recording] = build(recording)
    return _environments[recording]


def _run(job: Job, build: Builder) -> None:
    """Record one shard in a worker process; after an interruption, write its complete episodes."""
    environment = _environment(job.recording, build)
    episodes: list[Episode] = []
    with suppress(Stopped):
        for number in range(job.first, job.first + job.count):
            episodes.append(record_episode(environment, job.recording, number, count))
            # the first frame, and frames after an early end
            count(job.recording.length - len(episodes[-1]) + 1)
    if episodes:
        attributes = {**job.recording.attributes(), **environment.notes(), "first_episode": job.first, **_versions()}
        write_shard(replace(job, count=len(episodes)).path, episodes, attributes)


def _versions() -> dict[str, Attribute]:
    """Versions of the simulator, which may change its results."""
    found: dict[str, Attribute] = {}
    for package in ("dm-control", "mujoco", "gymnasium"):
        try:
            found[f"{package.replace('-', '_')}_version"] = version(package)
        except PackageNotFoundError:
            continue
    return found
