"""Which clips a training step reads, as a pure function of (seed, step, rank); reads no data.

All legal clips of a pool of episodes, in order, lie on a line: one for each frame that a clip may start at. With R
ranks the line is cut into R equal stretches, and rank r draws from the r-th, each clip with the same probability. So no
clip belongs to two ranks, none to nobody, and a rank reads its own stretch of the files, however many ranks there are.
An episode that a cut goes through is read by two ranks, which start their clips on either side of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt64

from aime.data.sources import Pools
from aime.errors import AimeError


class ClipStarts(NamedTuple):
    """Where B clips lie in a data set."""

    episodes: Int64[np.ndarray, " B"]
    """The numbers of their episodes."""
    starts: Int64[np.ndarray, " B"]
    """The steps at which they begin."""

    def take(self, rows: Int64[np.ndarray, " N"]) -> ClipStarts:
        """Some of them, in the order given."""
        return ClipStarts(self.episodes[rows], self.starts[rows])


class Stretch(NamedTuple):
    """What a rank has of the line of a pool's clips."""

    first: int
    stop: int

    @classmethod
    def of_rank(cls, clips: int, rank: int, ranks: int) -> Stretch:
        """The stretch of a rank; where there are fewer clips than ranks, some share one."""
        first = min(rank * clips // ranks, clips - 1)
        return cls(first, max((rank + 1) * clips // ranks, first + 1))


class _Pool:
    """The episodes of a pool, their clips on a line, and a rank's stretch of it."""

    def __init__(
        self, episodes: Int64[np.ndarray, " E"], clips: Int64[np.ndarray, " E"], rank: int, ranks: int
    ) -> None:
        self.episodes, self.ends = episodes, np.cumsum(clips)
        self.stretch = Stretch.of_rank(int(self.ends[-1]), rank, ranks)

    def places(self, words: UInt64[np.ndarray, " B"]) -> ClipStarts:
        """The clips that some random words draw."""
        first, stop = self.stretch
        drawn = first + (words % np.uint64(stop - first)).astype(np.int64)
        number = np.searchsorted(self.ends, drawn, side="right")
        starts = drawn - np.concatenate([[0], self.ends])[number]
        return ClipStarts(self.episodes[number], starts)


class Drawing:
    """Draws clips for one rank: from every pool its share, and in a pool each clip of the rank's stretch alike.

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
        """Lay out the clips.

        Args:
            lengths: steps of each episode, 1 or more.
            pools: which episodes are drawn together, and how often.
            batch: clips per step and rank, 1 or more.
            length: steps per clip, 1 or more.
            seed: of the whole run, 0 to 2^64 - 1.
            rank: this process, 0 to `ranks` - 1.
            ranks: processes that train together.

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
    def stretches(self) -> tuple[Stretch, ...]:
        """What this rank has of each pool."""
        return tuple(pool.stretch for pool in self._pools)

    def draw(self, step: int) -> ClipStarts:
        """The clips of one training step, 0 or later."""
        # A counter-based generator: the key names the stream and the counter's highest word the step, so that no two
        # of them can overlap. Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
        key, counter = np.array([self.seed, self.rank], np.uint64), np.array([0, 0, 0, step], np.uint64)
        # Raw 64-bit words, because NumPy promises that only these stay the same from version to version.
        words = np.random.Philox(key=key, counter=counter).random_raw(2 * self.batch)
        drawn, choosing = words[: self.batch], words[self.batch :]
        if len(self._pools) == 1:
            return self._pools[0].places(drawn)
        chosen = np.searchsorted(self._limits, (choosing >> np.uint64(11)) * 2.0**-53, side="right")
        places = ClipStarts(*np.zeros((2, self.batch), np.int64))
        for number, pool in enumerate(self._pools):
            rows = chosen == number
            places.episodes[rows], places.starts[rows] = pool.places(drawn[rows])
        return places
