"""The shards that a recording still has to write.

A shard's name contains the numbers of its episodes, and its attributes the settings. So a recording can be continued
after an interruption, and extended.
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
"""Maximum number of episodes per shard, which a kill loses at most per process."""

SHARD_FRAMES = 5000
"""Maximum number of frames per shard, unless one episode is longer: 60 MB in memory at 64x64."""


@dataclass(frozen=True)
class Job:
    """One shard to record: episodes `first` to `first + count - 1`."""

    recording: Recordable
    directory: Path
    first: int
    count: int

    @property
    def path(self) -> Path:
        """The shard's file. The order of the names is the order of the episodes."""
        return self.directory / f"episodes-{self.first:06d}-{self.first + self.count - 1:06d}.h5"

    @property
    def frames(self) -> int:
        """Maximum number of frames in the shard."""
        return self.count * self.recording.length


def plan(recording: Recordable, directory: Path, episodes: int, workers: int) -> list[Job]:
    """The shards that a directory lacks for episodes 0 to `episodes - 1`.

    Args:
        recording: the settings, which existing shards must have as well.
        directory: of the shards; it may not exist yet.
        episodes: total number of episodes.
        workers: number of processes.

    Raises:
        AimeError: if the directory has shards of another recording, or a damaged shard.
    """
    missing = sorted(set(range(episodes)) - _recorded(recording, directory))
    most = max(1, min(SHARD_EPISODES, SHARD_FRAMES // recording.length, -(-len(missing) // workers)))
    return [Job(recording, directory, first, count) for first, count in _runs(missing, most)]


def _recorded(recording: Recordable, directory: Path) -> set[int]:
    """The numbers of the recorded episodes."""
    if directory.exists() and not directory.is_dir():
        raise AimeError(f"{directory}: is a file; expected a directory: choose another --out")
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
                f"{path}: is not from `aime collect` (attribute '{name}' is missing); expected an empty directory "
                "or one of the same recording: choose another --out"
            )
        # the environment is compared first: others may have other settings
        if name in wanted and shard.attributes[name] != wanted[name]:
            raise AimeError(
                f"{path}: was recorded with {name} {shard.attributes[name]}; expected {wanted[name]}: choose another "
                "--out, or the settings of the recording"
            )


def _runs(numbers: Iterable[int], most: int) -> Iterator[tuple[int, int]]:
    """Divide increasing numbers into ranges (first, count) without gaps, none longer than `most`."""
    first = count = 0
    for number in numbers:
        if count and (number != first + count or count == most):
            yield first, count
            count = 0
        first, count = (number, 1) if count == 0 else (first, count + 1)
    if count:
        yield first, count
