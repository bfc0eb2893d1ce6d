"""The plan of an import: the assignment of episodes to shards, stored with the data set so that an import can resume.

A job is a group of consecutive episodes. It writes its shards and then a note of its results. A resumed import removes
the shards of jobs without a note and repeats these jobs. The contents of shards depend only on the source and the
settings, not on kills or the number of processes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aime.errors import AimeError
from aime.io.importers.interface import Item
from aime.primitives.files import write_atomically
from aime.primitives.locks import LOCK, only_writer

JOB_BYTES = 64 * 2**20
"""Largest decoded size of a job, unless one episode is larger; a kill loses at most this much per process."""

NOTES = ".import"
"""The subdirectory of the data set with the plan and the jobs' notes."""

REPORT = "import.json"


@dataclass(frozen=True)
class Job:
    """Consecutive episodes, and the number in their shards' names."""

    number: int
    items: tuple[Item, ...]

    def shard(self, out: Path, part: int) -> Path:
        """The path of one of its shards; the order of names is that of the source's episodes."""
        return out / f"episodes-{self.number:06d}-{part:03d}.h5"

    def note(self, out: Path) -> Path:
        """The path of its note."""
        return out / NOTES / f"job-{self.number:06d}.json"


def cut_into_jobs(items: Sequence[Item]) -> list[Job]:
    """Jobs of about `JOB_BYTES` each, in the order of the items."""
    jobs: list[Job] = []
    part: list[Item] = []
    weight = 0
    for item in items:
        if part and weight + item.weight > JOB_BYTES:
            jobs.append(Job(len(jobs), tuple(part)))
            part, weight = [], 0
        part.append(item)
        weight += item.weight
    return [*jobs, Job(len(jobs), tuple(part))] if part else jobs


@dataclass(frozen=True)
class Ledger:
    """The progress of an import in its output directory."""

    out: Path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory against other imports.

        Raises:
            AimeError: if another process writes there, or the directory cannot be written.
        """
        if self.out.exists() and not self.out.is_dir():
            raise AimeError(f"{self.out}: is a file; expected a directory: choose another --out")
        with only_writer(self.out):
            (self.out / NOTES).mkdir(exist_ok=True)
            yield

    def begin(self, settings: Mapping[str, Any], items: Sequence[Item]) -> dict[str, Any]:
        """Start or resume the import.

        Args:
            settings: plain values that determine the shards, besides the source's contents.
            items: the episodes.

        Returns:
            The plan, with the entries of `remember` so far.

        Raises:
            AimeError: if the directory has other files or another import.
        """
        wanted = {**settings, "episodes": len(items), "digest": _digest(items)}
        plan = self._read_plan()
        if plan is None:
            self._check_empty()
        elif any((self.out / NOTES).glob("job-*.json")):
            self._check_same(plan["settings"], wanted)
        else:  # no job is done: the import may start again, with a corrected source
            plan = None
        if plan is None:
            plan = {"settings": wanted}
            self._write_plan(plan)
        self._tidy()
        return plan

    def _check_same(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        for name in now.keys() | before.keys():
            if before.get(name) != now.get(name):
                changed = f"{name} was {before.get(name)}, is now {now.get(name)}"
                what = "the source has changed since" if name in ("digest", "episodes", "files") else changed
                raise AimeError(
                    f"{self.out}: has an import with other settings ({what}); choose another --out, or delete it"
                )

    def remember(self, plan: dict[str, Any], **more: Any) -> None:
        """Store entries in the plan, such as the range of the actions, which is expensive to compute."""
        plan.update(more)
        self._write_plan(plan)

    def open_jobs(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs without a note; their partial shards are removed."""
        missing = [job for job in jobs if not job.note(self.out).exists()]
        for job in missing:
            for path in self.out.glob(f"episodes-{job.number:06d}-*.h5"):
                path.unlink()
        return missing

    def notes(self, jobs: Sequence[Job]) -> Iterator[dict[str, Any]]:
        """The notes of the jobs, in order."""
        for job in jobs:
            yield _read_json(job.note(self.out))

    def _read_plan(self) -> dict[str, Any] | None:
        path = self.out / NOTES / "plan.json"
        return _read_json(path) if path.exists() else None

    def _write_plan(self, plan: Mapping[str, Any]) -> None:
        write_atomically(self.out / NOTES / "plan.json", json.dumps(plan, indent=1).encode())

    def _check_empty(self) -> None:
        found = next((path for path in self.out.glob("*") if path.name not in (NOTES, LOCK)), None)
        if found is not None:
            raise AimeError(f"{self.out}: contains {found.name}; expected an empty directory: choose another --out")

    def _tidy(self) -> None:
        """Remove temporary files of killed processes."""
        for path in [*self.out.glob(".*.tmp"), *(self.out / NOTES).glob(".*.tmp")]:
            path.unlink()


def files_digest(source: Path) -> str:
    """A digest of the sizes and times of a source's files, so that a resumed import detects changes.

    Args:
        source: a file or directory, or a missing path. Hidden files and outputs of imports are ignored.
    """
    digest = hashlib.sha256()
    for path in _files_of(source):
        with suppress(OSError):
            status = path.stat()
            digest.update(
                f"{path.relative_to(source)}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="replace")
            )
    return digest.hexdigest()


def _files_of(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
        return
    for place, directories, names in os.walk(source):
        here = Path(place)
        directories[:] = sorted(name for name in directories if name[0] != "." and not (here / name / NOTES).is_dir())
        yield from (here / name for name in sorted(names) if name[0] != ".")


def _digest(items: Sequence[Item]) -> str:
    return hashlib.sha256(json.dumps([list(item) for item in items]).encode()).hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(found, dict)
        return found
    except (ValueError, AssertionError) as error:
        raise AimeError(
            f"{path}: is no note of an import ({error}); delete {path.parent.parent} and import again"
        ) from error
