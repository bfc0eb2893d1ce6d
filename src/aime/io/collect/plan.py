"""What is left to record: the shards that a directory has against the episodes that were asked for.

A shard's name says which episodes it holds, and its attributes with which settings they were recorded. So a directory
can be gone on with after an interruption, and later be extended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from aime.data.shard_files import shards_in
from aime.data.shards import Shard
from aime.errors import AimeError
from aime.io.collect.recording import Recordable

SHARD_EPISODES = 20
"""Most episodes of a shard: a kill loses this many per process at worst."""

SHARD_FRAMES = 5000
"""Most frames of a shard, unless one episode is longer: 60 MB in memory at 64x64."""


@dataclass(frozen=True)
class Job:
    """One shard to record: episodes `first` to `first + count - 1`."""

    recording: Recordable
    directory: Path
    first: int
    count: int

    @property
    def path(self) -> Path:
        """The shard's file; files in the order of their names hold episodes in the order of their numbers."""
        return self.directory / f"episodes-{self.first:06d}-{self.first + self.count - 1:06d}.h5"

    @property
    def frames(self) -> int:
        """Most frames that the shard can hold."""
        return self.count * self.recording.length


def plan(recording: Recordable, directory: Path, episodes: int, workers: int) -> list[Job]:
    """The shards that are missing from a directory for it to hold episodes 0 to `episodes - 1`.

    Args:
        recording: the settings, which the shards that exist must share.
        directory: where shards are and will be; it need not exist.
        episodes: how many the directory shall hold.
        workers: processes to share the work between.

    Raises:
        AimeError: if the directory holds shards of another recording, or a damaged one.
    """
    missing = sorted(set(range(episodes)) - _recorded(recording, directory))
    most = max(1, min(SHARD_EPISODES, SHARD_FRAMES // recording.length, -(-len(missing) // workers)))
    return [Job(recording, directory, first, count) for first, count in _runs(missing, most)]


def _recorded(recording: Recordable, directory: Path) -> set[int]:
    """The numbers of the episodes that a directory has."""
    if directory.exists() and not directory.is_dir():
        raise AimeError(f"{directory}: is a file, expected a directory to record into; choose another --out")
    numbers: set[int] = set()
    for path in shards_in(directory) if directory.exists() else ():
        shard = Shard(path)
        _check_same(path, shard, recording)
        first = int(shard.attributes["first_episode"])
        numbers.update(range(first, first + len(shard.lengths)))
    return numbers


def _check_same(path: Path, shard: Shard, recording: Recordable) -> None:
    wanted = recording.attributes()
    for name in ("first_episode", *wanted):
        if name not in shard.attributes:
            raise AimeError(
                f"{path}: is no shard of `aime collect` (attribute '{name}' is missing), expected an empty directory "
                "or one to go on with; choose another --out"
            )
        # the environment comes first: another one may note other settings
        if name in wanted and shard.attributes[name] != wanted[name]:
            raise AimeError(
                f"{path}: was recorded with {name} {shard.attributes[name]}, now {wanted[name]} is asked for; choose "
                "another --out, or the old settings to go on"
            )


def _runs(numbers: Iterable[int], most: int) -> Iterator[tuple[int, int]]:
    """Cut increasing numbers into stretches (first, count) without gaps, none longer than `most`."""
    first = count = 0
    for number in numbers:
        if count and (number != first + count or count == most):
            yield first, count
            count = 0
        first, count = (number, 1) if count == 0 else (first, count + 1)
    if count:
        yield first, count
