"""Random choice of training clips as a pure function of (seed, step, rank); reads no data.

All possible clips of a pool of episodes are numbered in order, one for each possible first frame. With R ranks the
numbers are divided into R equal ranges, and rank r draws uniformly from the r-th. So every clip belongs to exactly one
rank, and a rank reads only a part of the files. An episode at a boundary is read by two ranks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt64

from aime.data.sources import Pools
from aime.errors import AimeError


class ClipStarts(NamedTuple):
    """The positions of B clips in a data set."""

    episodes: Int64[np.ndarray, " B"]
    """Episode numbers."""
    starts: Int64[np.ndarray, " B"]
    """First steps."""

    def take(self, rows: Int64[np.ndarray, " N"]) -> ClipStarts:
        """Select clips, in the given order."""
        return ClipStarts(self.episodes[rows], self.starts[rows])


class ClipRange(NamedTuple):
    """A rank's range of a pool's clip numbers."""

    first: int
    stop: int

    @classmethod
    def of_rank(cls, clips: int, rank: int, ranks: int) -> ClipRange:
        """The range of a rank; with fewer clips than ranks, some ranks share a clip."""
        first = min(rank * clips // ranks, clips - 1)
        return cls(first, max((rank + 1) * clips // ranks, first + 1))


class _Pool:
    """The episodes of a pool, the numbering of their clips, and a rank's range."""

    def __init__(
        self, episodes: Int64[np.ndarray, " E"], clips: Int64[np.ndarray, " E"], rank: int, ranks: int
    ) -> None:
        self.episodes, self.ends = episodes, np.cumsum(clips)
        self.range = ClipRange.of_rank(int(self.ends[-1]), rank, ranks)

    def clips(self, words: UInt64[np.ndarray, " B"]) -> ClipStarts:
        """The clips for random 64-bit words."""
        first, stop = self.range
        drawn = first + (words % np.uint64(stop - first)).astype(np.int64)
        number = np.searchsorted(self.ends, drawn, side="right")
        starts = drawn - np.concatenate([[0], self.ends])[number]
        return ClipStarts(self.episodes[number], starts)


class Drawing:
    """Draws clips for one rank: a pool by its share, then a clip of the rank's range uniformly.

    An episode shorter than a clip has one clip.
    """

    def __init__(
        self,
        lengths: Int64[np.ndarray, " E"],
        pools: Pools,
        batch: int,
        length: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """Number the clips.

        Args:
            lengths: steps of each episode, 1 or more.
            pools: the pool of each episode, and the pools' shares.
            batch: clips per step and rank, 1 or more.
            length: steps per clip, 1 or more.
            seed: of the run, 0 to 2^64 - 1.
            rank: of this process, 0 to `ranks` - 1.
            ranks: number of ranks.

        Raises:
            AimeError: if a number is out of its range.
        """
        for name, value, low, high in (
            ("batch", batch, 1, None),
            ("length", length, 1, None),
            ("seed", seed, 0, 2**64),
            ("rank", rank, 0, ranks),
        ):
            if value < low or (high is not None and value >= high):
                limit = f"at least {low}" if high is None else f"{low} to {high - 1}"
                raise AimeError(f"clip sampler: {name} is {value}, expected {limit}")
        self.batch, self.seed, self.rank = batch, seed, rank
        clips = np.maximum(lengths - length + 1, 1)
        members = [np.flatnonzero(pools.of_episode == number) for number in range(len(pools.shares))]
        self._pools = [_Pool(episodes, clips[episodes], rank, ranks) for episodes in members]
        self._limits = np.cumsum(pools.shares)[:-1]

    @property
    def ranges(self) -> tuple[ClipRange, ...]:
        """This rank's range of each pool."""
        return tuple(pool.range for pool in self._pools)

    def draw(self, step: int) -> ClipStarts:
        """The clips of one training step, 0 or later."""
        # Counter-based generator: the step is the counter's highest word, so that steps cannot overlap.
        # Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
        key, counter = np.array([self.seed, self.rank], np.uint64), np.array([0, 0, 0, step], np.uint64)
        # raw 64-bit words: NumPy guarantees only these across versions
        words = np.random.Philox(key=key, counter=counter).random_raw(2 * self.batch)
        drawn, choosing = words[: self.batch], words[self.batch :]
        if len(self._pools) == 1:
            return self._pools[0].clips(drawn)
        chosen = np.searchsorted(self._limits, (choosing >> np.uint64(11)) * 2.0**-53, side="right")
        clips = ClipStarts(*np.zeros((2, self.batch), np.int64))
        for number, pool in enumerate(self._pools):
            rows = chosen == number
            clips.episodes[rows], clips.starts[rows] = pool.clips(drawn[rows])
        return clips
