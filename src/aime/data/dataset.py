"""A data set: the episodes of many shards, seen as one list."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from aime.data.bundled import PARTS, Part, bundled_path
from aime.data.cache import FrameCache
from aime.data.episodes import Episode
from aime.data.shards import Attribute, Shard
from aime.errors import AimeError

Split = Literal["all", "train", "held-out"]

SUFFIXES = (".h5", ".hdf5")


class Dataset:
    """Episodes of one or more shards, numbered in the order of the shards' names.

    Attributes:
        name: what the user calls it: a directory, a file or "bundled:NAME".
        lengths: `[E]` int64, steps of each episode.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        name: str,
        index: Int64[np.ndarray, "E 2"] | None = None,
        cache: FrameCache | None = None,
    ) -> None:
        """Join shards that agree on image size, action width and state width.

        Args:
            shards: at least one.
            name: for messages and reports.
            index: rows of (shard, episode of that shard), in the order wanted; all of them by default.
            cache: decoded frames, shared with the data set that this one is a view of.

        Raises:
            AimeError: if two shards differ in a width, naming both.
        """
        _check_agreement(shards)
        self.name = name
        self._shards = tuple(shards)
        self._index = _all_episodes(shards) if index is None else index
        self._cache = cache or FrameCache()
        self.lengths: Int64[np.ndarray, " E"] = np.array([shards[s].lengths[e] for s, e in self._index], dtype=np.int64)

    @property
    def episodes(self) -> int:
        """E, the number of episodes."""
        return len(self._index)

    @property
    def frames(self) -> int:
        """Frames of all episodes together."""
        return int(self.lengths.sum())

    @property
    def files(self) -> tuple[Path, ...]:
        """Where the shards lie."""
        return tuple(shard.path for shard in self._shards)

    @property
    def action_width(self) -> int:
        """A, the number of actuators."""
        return self._shards[0].action_width

    @property
    def state_width(self) -> int:
        """S, or 0 where no state was recorded."""
        return self._shards[0].state_width

    @property
    def has_state(self) -> bool:
        """Whether the simulator's state was recorded."""
        return self.state_width > 0

    @property
    def has_rewards(self) -> bool:
        """Whether any reward in the files is known and not 0."""
        return any(bool(np.nan_to_num(shard.reward).any()) for shard in self._shards)

    @property
    def image_size(self) -> int:
        """Height and width of a frame, in pixels."""
        return self._shards[0].image_size

    @property
    def attributes(self) -> dict[str, Attribute]:
        """What the writers noted, as far as all shards agree."""
        first, *rest = (shard.attributes for shard in self._shards)
        return {key: value for key, value in first.items() if all(other.get(key) == value for other in rest)}

    def __iter__(self) -> Iterator[Episode]:
        """Whole episodes, one after the other."""
        return (self.read(episode) for episode in range(self.episodes))

    def read(self, episode: int, start: int = 0, stop: int | None = None) -> Episode:
        """Steps `start` to `stop` (exclusive; the end by default) of one episode.

        Raises:
            AimeError: if there is no such stretch, or if the file is damaged there.
        """
        if not 0 <= episode < self.episodes:
            raise AimeError(f"{self.name}: has no episode {episode}, expected 0 to {self.episodes - 1}")
        stop = int(self.lengths[episode]) if stop is None else stop
        frames = np.empty((max(stop - start, 0), self.image_size, self.image_size, 3), dtype=np.uint8)
        return self.read_into(frames, episode, start)

    def read_into(self, frames: UInt8[np.ndarray, "L H H 3"], episode: int, start: int) -> Episode:
        """The L steps of an episode from `start` on; its pixels are put into `frames`, with no copy beside it.

        Raises:
            AimeError: if the episode has fewer than `start` + L steps, or if the file is damaged there.
        """
        number, local = self._index[episode]
        shard, length = self._shards[number], int(self.lengths[episode])
        if not 0 <= start < start + len(frames) <= length:
            raise AimeError(
                f"{self.name}: steps {start} to {start + len(frames)} asked of episode {episode}, expected a stretch "
                f"within 0 to {length}"
            )
        first = int(shard.offsets[local]) + start
        rows = slice(first, first + len(frames))
        self._cache.copy_into(frames, shard, first)
        state = None if shard.state is None else shard.state[rows]
        return Episode(frames, shard.action[rows], shard.reward[rows], shard.terminated[rows], state)

    def select(self, indices: Sequence[int] | Int64[np.ndarray, " I"]) -> Dataset:
        """A view of some episodes, in the order given; shards and decoded frames are shared.

        Raises:
            AimeError: if an index is not an episode, or if none is given.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if chosen.size == 0 or chosen.min() < 0 or chosen.max() >= self.episodes:
            raise AimeError(
                f"{self.name}: selected episodes {chosen.tolist()}, expected some of 0 to {self.episodes - 1}"
            )
        return Dataset(self._shards, self.name, self._index[chosen], self._cache)

    def mean_image(self, limit: int = 2000) -> Float32[np.ndarray, "3 H W"]:
        """The mean frame in [0, 1], of at most `limit` frames at equal distances through all episodes.

        Raises:
            AimeError: if a file is damaged.
        """
        total, count = np.zeros((self.image_size, self.image_size, 3), dtype=np.int64), 0
        for frame in self.spread_frames(limit):
            total, count = total + frame, count + 1
        return np.ascontiguousarray((total / (255.0 * count)).transpose(2, 0, 1), dtype=np.float32)

    def state_moments(self) -> tuple[Float32[np.ndarray, " S"], Float32[np.ndarray, " S"]]:
        """Mean and standard deviation of each number of the states, over all frames in which it is known.

        What is never known has mean 0 and deviation 0.
        """
        count, total, squares = np.zeros((3, self.state_width))
        for number, local in self._index:
            shard = self._shards[number]
            assert shard.state is not None, "asked of data with states"
            first = int(shard.offsets[local])
            states = shard.state[first : first + int(shard.lengths[local])].astype(np.float64)
            known = np.isfinite(states)
            states = np.where(known, states, 0)
            count, total, squares = count + known.sum(0), total + states.sum(0), squares + np.square(states).sum(0)
        mean = total / np.maximum(count, 1)
        variance = np.maximum(squares / np.maximum(count, 1) - np.square(mean), 0)
        return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)

    def spread_frames(self, limit: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """At most `limit` frames, 0 to 255, at equal distances through all episodes.

        Raises:
            AimeError: if a file is damaged.
        """
        rows = np.unique(np.linspace(0, self.frames - 1, min(limit, self.frames)).astype(np.int64))
        ends = np.cumsum(self.lengths)
        episodes = np.searchsorted(ends, rows, side="right")
        starts = rows - (ends - self.lengths)[episodes]
        for episode, start in zip(episodes.tolist(), starts.tolist(), strict=True):
            yield self.read(episode, start, start + 1).pixels[0]


def open_dataset(source: str | Path, split: Split = "all", held_out: float = 0.05) -> Dataset:
    """Open and check a data set; pixels are read later, on demand.

    Args:
        source: a directory of `*.h5` or `*.hdf5` shards, one such file, or "bundled:NAME".
        split: "train" and "held-out" share no episode. A bundled data set was recorded as two parts; of any other, the
            last episodes in the order of the shards' names are held out.
        held_out: the share of episodes to hold out, in [0, 1); at least one is, if it is not 0, and never all.

    Raises:
        AimeError: if the source is missing, holds no shard, breaks a rule of the schema, or has too few episodes to
            split.
    """
    if split not in ("all", "train", "held-out"):
        raise AimeError(f"split is {split!r}, expected 'all', 'train' or 'held-out'")
    if not 0 <= held_out < 1:
        raise AimeError(f"held_out is {held_out}, expected a share in [0, 1), such as 0.05")
    if isinstance(source, str) and source.startswith("bundled:"):
        parts: tuple[Part, ...] = PARTS if split == "all" else (split,)
        paths = [path for part in parts for path in _shard_paths(bundled_path(source.removeprefix("bundled:"), part))]
        return Dataset([Shard(path) for path in paths], source)
    dataset = Dataset([Shard(path) for path in _shard_paths(Path(source))], str(source))
    return dataset if split == "all" else dataset.select(_split(dataset, split, held_out))


def _split(dataset: Dataset, split: Split, held_out: float) -> Int64[np.ndarray, " I"]:
    count = min(math.ceil(held_out * dataset.episodes), dataset.episodes - 1)
    everything = np.arange(dataset.episodes, dtype=np.int64)
    if split == "train":
        return everything[: dataset.episodes - count]
    if count == 0:
        raise AimeError(
            f"{dataset.name}: has {dataset.episodes} episode(s), of which a share of {held_out} holds none out; "
            "expected 2 or more episodes; record more"
        )
    return everything[dataset.episodes - count :]


def _shard_paths(source: Path) -> list[Path]:
    if not source.exists():
        raise AimeError(
            f"{source}: no such file or directory, expected a data set; record one with `aime collect`, or use "
            "bundled:cartpole"
        )
    if source.is_file():
        return [source]
    paths = sorted(path for path in source.iterdir() if path.suffix in SUFFIXES and not path.name.startswith("."))
    if not paths:
        raise AimeError(
            f"{source}: holds no shard, expected files named *.h5 or *.hdf5; record some with `aime collect`"
        )
    return paths


def _all_episodes(shards: Sequence[Shard]) -> Int64[np.ndarray, "E 2"]:
    pairs = [(number, episode) for number, shard in enumerate(shards) for episode in range(len(shard.lengths))]
    return np.array(pairs, dtype=np.int64)


def _check_agreement(shards: Sequence[Shard]) -> None:
    first = shards[0]
    for shard in shards[1:]:
        for field, unit, found, expected in (
            ("pixels", "pixels of image size", shard.image_size, first.image_size),
            ("action", "actions", shard.action_width, first.action_width),
            ("state", "state variables", shard.state_width, first.state_width),
        ):
            if found != expected:
                raise AimeError(
                    f"{shard.path}: '{field}' has {found} {unit}, expected {expected} as in {first.path}; keep shards "
                    "of different worlds in different directories"
                )
