"""A bounded cache of decoded frames."""

from __future__ import annotations

import threading

import numpy as np
from jaxtyping import UInt8

from aime.data.shards import Shard

CACHE_BYTES = 256 * 2**20
"""Enough for 22,000 frames of 64 x 64; decoding costs ten times as much as copying."""


class FrameCache:
    """Reads pixels through a cache of decoded blocks; thread-safe.

    Blocks are cached until the limit is reached and never replaced: clips are drawn uniformly, so replacement would not
    improve the hit rate.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        """A cache of at most `limit` bytes of pixels."""
        self.limit = limit
        self._blocks: dict[tuple[Shard, int], UInt8[np.ndarray, "L H W 3"]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, int]:
        """The limit, without the pixels."""
        return {"limit": self.limit}

    def __setstate__(self, state: dict[str, int]) -> None:
        """An empty cache with the same limit."""
        self.__init__(state["limit"])  # type: ignore[misc]

    @property
    def bytes(self) -> int:
        """Bytes of cached pixels."""
        return self._bytes

    def copy_into(self, frames: UInt8[np.ndarray, "L H W 3"], shard: Shard, start: int) -> None:
        """Fill `frames` with rows of the shard's pixel array, beginning at `start`.

        Raises:
            AimeError: if the file is damaged.
        """
        stop, size = start + len(frames), shard.block
        for number in range(start // size, (stop - 1) // size + 1):
            block, first = self._block(shard, number), number * size
            low, high = max(start, first), min(stop, first + size)
            frames[low - start : high - start] = block[low - first : high - first]

    def _block(self, shard: Shard, number: int) -> UInt8[np.ndarray, "L H W 3"]:
        block = self._blocks.get((shard, number))
        if block is None:
            block = shard.read_pixels(number * shard.block, (number + 1) * shard.block)
            with self._lock:
                if self._bytes + block.nbytes <= self.limit and (shard, number) not in self._blocks:
                    self._blocks[shard, number] = block
                    self._bytes += block.nbytes
        return block
