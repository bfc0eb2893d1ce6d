"""A data set: the episodes of several shards as one list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from aime.data.action_scale import ActionScale
from aime.data.cache import FrameCache
from aime.data.episodes import Episode
from aime.data.identity import HALVES, digests_of
from aime.data.mask_names import read_mask_names
from aime.data.shards import Attribute, Shard
from aime.data.sources import Mixture, Pools, Source, is_bundled
from aime.data.splitting import SourceDigests, Split, in_split
from aime.data.state_names import order_mismatch, read_state_names
from aime.data.units import Units
from aime.errors import AimeError


class Contribution(NamedTuple):
    """The part of one of several sources in a data set."""

    name: str
    """A directory, a file or "bundled:NAME"."""
    episodes: int
    frames: int
    share: float
    """Approximate share of the training clips, for clips much shorter than episodes."""


class Dataset:
    """Episodes of one or more shards, numbered in the order of the shards' names; several sources are interleaved.

    Attributes:
        name: a directory, a file, "bundled:NAME", or several of these.
        lengths: `[E]` int64, steps of each episode.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        name: str,
        index: Int64[np.ndarray, "E 2"] | None = None,
        cache: FrameCache | None = None,
        mixture: Mixture | None = None,
        units: Units | None = None,
    ) -> None:
        """Join shards with the same image size, action width and state width.

        Args:
            shards: at least one.
            name: for messages and reports.
            index: rows of (shard, episode of that shard), in order; all by default.
            cache: of decoded frames, shared between views of a data set.
            mixture: the source of each shard and the sources' weights; one source by default.
            units: of the actions; default: the shards' own, or the smallest scale that contains all of theirs.

        Raises:
            AimeError: if two shards differ in a width (names both), or some have action units and others do not.
        """
        _check_agreement(shards)
        self.name = name
        self._shards = tuple(shards)
        self._index = _all_episodes(shards) if index is None else index
        self._cache = cache or FrameCache()
        self._mixture = mixture or Mixture((Source(name),), (0,) * len(shards))
        self._units = units or Units.of_shards(shards)
        self.lengths: Int64[np.ndarray, " E"] = np.array([shards[s].lengths[e] for s, e in self._index], dtype=np.int64)

    @property
    def episodes(self) -> int:
        """E, the number of episodes."""
        return len(self._index)

    @property
    def frames(self) -> int:
        """The total number of frames."""
        return int(self.lengths.sum())

    @property
    def digests(self) -> tuple[str, ...]:
        """The identity of each episode (see `aime.data.identity`); the first access reads all pixels.

        Raises:
            AimeError: if a file is damaged.
        """
        return digests_of(self._shards, self._index)

    @property
    def by_source(self) -> tuple[tuple[Source, SourceDigests], ...]:
        """The digests of each source's episodes in this data set, in the order of the sources.

        Raises:
            AimeError: if a file is damaged.
        """
        source, digests = np.array(self._mixture.of_shard)[self._index[:, 0]], np.array(self.digests)
        return tuple(
            (each, SourceDigests(tuple(digests[source == number].tolist()), is_bundled(each.name)))
            for number, each in enumerate(self._mixture.sources)
        )

    @property
    def files(self) -> tuple[Path, ...]:
        """The paths of the shards that have an episode in this data set."""
        return tuple(shard.path for shard in self._used)

    @property
    def _used(self) -> tuple[Shard, ...]:
        return tuple(self._shards[number] for number in np.unique(self._index[:, 0]))

    @property
    def action_width(self) -> int:
        """A, the number of actuators."""
        return self._shards[0].action_width

    @property
    def state_width(self) -> int:
        """S, or 0 if no state was recorded."""
        return self._shards[0].state_width

    @property
    def state_names(self) -> dict[str, int]:
        """The state's fields and their widths, in order; empty if the shards name none."""
        return read_state_names(self.attributes, self.state_width)

    @property
    def has_state(self) -> bool:
        """Whether states were recorded."""
        return self.state_width > 0

    @property
    def has_mask(self) -> Bool[np.ndarray, " E"]:
        """True for episodes with masks."""
        return np.array([self._shards[s].has_mask[e] for s, e in self._index], dtype=bool)

    @property
    def mask_names(self) -> dict[int, str]:
        """The names of the ids in the masks; empty if the shards name none, or differ."""
        masked = np.unique(self._index[self.has_mask, 0])
        found = [read_mask_names(self._shards[number].attributes) for number in masked]
        return found[0] if found and all(names == found[0] for names in found) else {}

    @property
    def has_rewards(self) -> bool:
        """Whether any reward in the files is known and not 0."""
        return any(bool(np.nan_to_num(shard.reward).any()) for shard in self._used)

    @property
    def image_size(self) -> int:
        """Height and width of a frame, in pixels."""
        return self._shards[0].image_size

    @property
    def attributes(self) -> dict[str, Attribute]:
        """The attributes on which all shards with an episode in this data set agree."""
        first, *rest = (shard.attributes for shard in self._used)
        agreed = {key: value for key, value in first.items() if all(other.get(key) == value for other in rest)}
        return agreed if self.action_scale is None else agreed | self.action_scale.attributes()

    @property
    def rates(self) -> tuple[float, ...]:
        """The distinct frame rates (per second) of the shards in use, ascending."""
        noted = {shard.attributes.get("fps") for shard in self._used}
        return tuple(sorted(float(rate) for rate in noted if isinstance(rate, int | float | np.number) and rate > 0))

    @property
    def action_scale(self) -> ActionScale | None:
        """The values of actions -1 and 1 in the source's units; None if unknown."""
        return self._units.scale

    @property
    def pools(self) -> Pools:
        """The groups of episodes from which clips are drawn, with their shares."""
        return self._mixture.pools(self._index[:, 0])

    @property
    def contributions(self) -> tuple[Contribution, ...]:
        """The parts of the sources, in order, without sources that have no episode in this data set."""
        pools, source = self.pools, np.array(self._mixture.of_shard)[self._index[:, 0]]
        pool_frames = np.bincount(pools.of_episode, self.lengths)
        found = []
        for number, each in enumerate(self._mixture.sources):
            own = source == number
            if own.any():
                frames, pool = int(self.lengths[own].sum()), pools.of_episode[own][0]
                share = float(pools.shares[pool] * frames / pool_frames[pool])
                found.append(Contribution(each.name, int(own.sum()), frames, share))
        return tuple(found)

    def __len__(self) -> int:
        """E, the number of episodes."""
        return self.episodes

    def __iter__(self) -> Iterator[Episode]:
        """Iterate over whole episodes."""
        return (self.read(episode) for episode in range(self.episodes))

    def read(self, episode: int, start: int = 0, stop: int | None = None) -> Episode:
        """Steps `start` to `stop` (exclusive; the end by default) of one episode, with its masks.

        Raises:
            AimeError: if there are no such steps, or the file is damaged.
        """
        stop = self._stop(episode, stop)
        frames = np.empty((max(stop - start, 0), self.image_size, self.image_size, 3), dtype=np.uint8)
        found = self.read_into(frames, episode, start)
        return replace(found, mask=self.masks(episode, start, stop))

    def masks(self, episode: int, start: int = 0, stop: int | None = None) -> UInt8[np.ndarray, "T H W"] | None:
        """The masks of steps `start` to `stop` (exclusive; the end by default) of one episode; reads no pixels.

        Returns:
            Instance ids, 0 for the background (see `mask_names`); None if the episode has no masks.

        Raises:
            AimeError: if there are no such steps, or the file is damaged.
        """
        shard, first, length = self._locate(episode, start, self._stop(episode, stop) - start)
        found = shard.read_masks(first, first + length)
        return None if found is None else found.copy()

    def _stop(self, episode: int, stop: int | None) -> int:
        if not 0 <= episode < self.episodes:
            raise AimeError(f"{self.name}: has no episode {episode}, expected 0 to {self.episodes - 1}")
        return int(self.lengths[episode]) if stop is None else stop

    def _locate(self, episode: int, start: int, steps: int) -> tuple[Shard, int, int]:
        """The shard of consecutive steps of an episode, their first row in it and their number."""
        number, local = self._index[episode]
        length = int(self.lengths[episode])
        if not 0 <= start < start + steps <= length:
            raise AimeError(
                f"{self.name}: steps {start} to {start + steps} asked of episode {episode}, expected a stretch "
                f"within 0 to {length}"
            )
        return self._shards[number], int(self._shards[number].offsets[local]) + start, steps

    def read_into(self, frames: UInt8[np.ndarray, "L H H 3"], episode: int, start: int) -> Episode:
        """Read L steps of an episode from `start`, with pixels written to `frames`; masks are not read.

        Raises:
            AimeError: if the episode has fewer than `start` + L steps, or the file is damaged.
        """
        shard, first, length = self._locate(episode, start, len(frames))
        rows = slice(first, first + length)
        self._cache.copy_into(frames, shard, first)
        state = None if shard.state is None else shard.state[rows]
        action = self._units.read(self._index[episode, 0], shard.action[rows])
        return Episode(frames, action, shard.reward[rows], shard.terminated[rows], state)

    def select(self, indices: Sequence[int] | Int64[np.ndarray, " I"]) -> Dataset:
        """A view of episodes, in the given order; shards and decoded frames are shared.

        Raises:
            AimeError: if an index is not an episode, or there is none.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if chosen.size == 0 or chosen.min() < 0 or chosen.max() >= self.episodes:
            raise AimeError(
                f"{self.name}: selected episodes {chosen.tolist()}, expected some of 0 to {self.episodes - 1}"
            )
        return Dataset(self._shards, self.name, self._index[chosen], self._cache, self._mixture, self._units)

    def leave_out(self, share: float) -> tuple[Dataset, Dataset | None]:
        """Split into kept episodes and a share of left-out ones, evenly spaced; copies stay on one side.

        Args:
            share: of the distinct episodes, in [0, 1), rounded; never all. The second result is None for no episode.

        Raises:
            AimeError: if a file is damaged.
        """
        first = self.different
        count = min(round(share * len(first)), len(first) - 1)
        if not count:
            return self, None
        left = first[((np.arange(count) + 0.5) * len(first) / count).astype(np.int64)]
        digests = np.array(self.digests)
        return self.select(np.flatnonzero(~np.isin(digests, digests[left]))), self.select(left)

    @property
    def different(self) -> Int64[np.ndarray, " D"]:
        """The numbers of the episodes that are not copies of an earlier one, in order.

        Raises:
            AimeError: if a file is damaged.
        """
        return np.sort(np.unique(np.array(self.digests), return_index=True)[1])

    def part(self, split: Split, held_out: frozenset[str]) -> Dataset:
        """The episodes of a split.

        Args:
            split: "all", "train", "held-out", "validation" or "test".
            held_out: digests of the held-out episodes.

        Raises:
            AimeError: if there is no such episode, or a file is damaged.
        """
        digests = self.digests
        chosen = [number for number, digest in enumerate(digests) if in_split(digest, split, held_out)]
        if not chosen:
            _refuse_empty(self.name, split, [each for each in digests if each in held_out], self.episodes)
        return self if len(chosen) == self.episodes else self.select(chosen)

    def in_scale(self, scale: ActionScale | None) -> Dataset:
        """The same episodes with actions in another scale; unchanged for None.

        Raises:
            AimeError: if the actions' units are unknown, or actions lie outside that scale.
        """
        if scale is None or scale == self.action_scale:
            return self
        units = Units.of_shards(self._shards, scale)
        return Dataset(self._shards, self.name, self._index, self._cache, self._mixture, units)

    def mean_image(self, limit: int = 2000) -> Float32[np.ndarray, "3 H W"]:
        """The mean frame, in [0, 1], of at most `limit` evenly spaced frames of all episodes.

        Raises:
            AimeError: if a file is damaged.
        """
        total, count = np.zeros((self.image_size, self.image_size, 3), dtype=np.int64), 0
        for frame in self.spread_frames(limit):
            total, count = total + frame, count + 1
        return np.ascontiguousarray((total / (255.0 * count)).transpose(2, 0, 1), dtype=np.float32)

    def state_moments(self) -> tuple[Float32[np.ndarray, " S"], Float32[np.ndarray, " S"]]:
        """Mean and standard deviation of each number of the states over the frames in which it is known; 0 if never."""
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

    def spread_episodes(self, frames: int) -> Dataset:
        """A view of one or more evenly spaced episodes with about `frames` frames in total."""
        wanted = max(1, min(self.episodes, round(frames * self.episodes / self.frames)))
        return self.select(np.unique(np.linspace(0, self.episodes - 1, wanted).round().astype(np.int64)))

    def spread_frames(self, limit: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """At most `limit` evenly spaced frames of all episodes, 0 to 255.

        Raises:
            AimeError: if a file is damaged.
        """
        rows = np.unique(np.linspace(0, self.frames - 1, min(limit, self.frames)).astype(np.int64))
        ends = np.cumsum(self.lengths)
        episodes = np.searchsorted(ends, rows, side="right")
        starts = rows - (ends - self.lengths)[episodes]
        for episode, start in zip(episodes.tolist(), starts.tolist(), strict=True):
            yield self.frame(episode, start)

    def frame(self, episode: int, step: int) -> UInt8[np.ndarray, "H W 3"]:
        """One frame, 0 to 255.

        Raises:
            AimeError: if there is no such step, or the file is damaged.
        """
        frames = np.empty((1, self.image_size, self.image_size, 3), dtype=np.uint8)
        return self.read_into(frames, episode, step).pixels[0]


def _refuse_empty(name: str, split: Split, held_out: Sequence[str], episodes: int) -> None:
    if split in HALVES and held_out:
        other = next(each for each in HALVES if each != split)
        raise AimeError(
            f"{name}: of {episodes} episodes {len(held_out)} are held out, and none of them is of the {split} part; "
            f"expected 1 or more: take the {other} part, or hold out a larger share"
        )
    raise AimeError(
        f"{name}: of {episodes} episodes none is in the split {split!r}; expected 2 or more different episodes, and a "
        "share to hold out that is not 0"
    )


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
                    "of different worlds in different directories, or import them alike"
                )
        order = order_mismatch(shard.attributes, first.attributes, (first.action_width, first.state_width))
        if order:
            raise AimeError(
                f"{shard.path}: has the {order} as in {first.path}; import one of them again in the other's order "
                "(--action-columns, --state-columns)"
            )
