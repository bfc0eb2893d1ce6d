"""The identity of an episode: a digest of its content, independent of its file.

The digest is the SHA-256 of the decoded pixels, the actions and the states, with their shapes. It does not depend on
names, paths, order, rewards, masks or compression, so that an episode can be moved, copied or put into another shard.
Lossy encoding, resizing, cutting, and other actions or states change it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from aime.data.blocks import FileIdentity
from aime.data.bundled import bundled_parts
from aime.data.shards import Shard

Half = Literal["validation", "test"]

HALVES: tuple[Half, ...] = ("validation", "test")

MOST_THREADS = 8
"""Largest number of threads that decode and hash; each holds one block of frames."""


def episode_digest(
    pixels: UInt8[np.ndarray, "L H W 3"],
    action: Float32[np.ndarray, "L A"],
    state: Float32[np.ndarray, "L S"] | None = None,
) -> str:
    """The identity of an episode, 64 hexadecimal digits.

    Args:
        pixels: 0 to 255.
        action: as stored in the shard, in [-1, 1]; all NaN values are equal, and -0 equals 0.
        state: in its own units; None if none was recorded.
    """
    return _digest(pixels.shape, (pixels,), action, state)


def half_of(digest: str) -> Half:
    """The half of the held-out data that an episode belongs to, in any data set.

    Episodes of a bundled validation or test set, and their copies, belong there; others are assigned by their digest.
    """
    part = bundled_parts().get(digest)
    if part in HALVES:
        return part
    return HALVES[int(digest[-1], 16) % 2]


def digests_of(shards: Sequence[Shard], index: Int64[np.ndarray, "E 2"]) -> tuple[str, ...]:
    """The digests of episodes; digests are cached per process.

    Args:
        shards: the files.
        index: rows of (shard, episode of that shard).

    Raises:
        AimeError: if a file is damaged.
    """
    pairs = [(shards[number], episode) for number, episode in index.tolist()]
    unknown = [pair for pair in dict.fromkeys(pairs) if _known.get(*pair) is None]
    if unknown:
        workers = max(1, min(MOST_THREADS, len(os.sched_getaffinity(0)), len(unknown)))
        with ThreadPoolExecutor(workers, thread_name_prefix="aime-digest") as pool:
            for (shard, episode), digest in zip(
                unknown, pool.map(_read_digest, *zip(*unknown, strict=True)), strict=True
            ):
                _known.note(shard, episode, digest)
    return tuple(_known.require(shard, episode) for shard, episode in pairs)


def note_digests(shards: Sequence[Shard], digests: Sequence[str]) -> None:
    """Add known digests of all episodes of shards, in order, to the cache."""
    pairs = [(shard, episode) for shard in shards for episode in range(len(shard.lengths))]
    for (shard, episode), digest in zip(pairs, digests, strict=True):
        _known.note(shard, episode, digest)


class _Known:
    """A cache of digests by the identity of the file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._digests: dict[FileIdentity, dict[int, str]] = {}

    def get(self, shard: Shard, episode: int) -> str | None:
        return self._digests.get(shard.identity, {}).get(episode)

    def require(self, shard: Shard, episode: int) -> str:
        found = self.get(shard, episode)
        assert found is not None, f"{shard.path}: episode {episode} has no digest"
        return found

    def note(self, shard: Shard, episode: int, digest: str) -> None:
        with self._lock:
            self._digests.setdefault(shard.identity, {})[episode] = digest


_known = _Known()


def _read_digest(shard: Shard, episode: int) -> str:
    first, length = int(shard.offsets[episode]), int(shard.lengths[episode])
    rows = slice(first, first + length)
    shape = (length, shard.image_size, shard.image_size, 3)
    return _digest(shape, _blocks(shard, rows), shard.action[rows], None if shard.state is None else shard.state[rows])


def _blocks(shard: Shard, rows: slice) -> Iterable[UInt8[np.ndarray, "L H W 3"]]:
    """The frames of rows, one compressed block at a time, to bound memory."""
    start = rows.start
    while start < rows.stop:
        stop = min((start // shard.block + 1) * shard.block, rows.stop)
        yield shard.read_pixels(start, stop)
        start = stop


def _digest(
    shape: tuple[int, ...],
    pixels: Iterable[UInt8[np.ndarray, "L H W 3"]],
    action: Float32[np.ndarray, "L A"],
    state: Float32[np.ndarray, "L S"] | None,
) -> str:
    found = hashlib.sha256(f"aime episode 1; pixels uint8 {shape}".encode())
    for part in pixels:
        found.update(np.ascontiguousarray(part, dtype=np.uint8).data)
    for name, array in (("action", action), ("state", state)):
        found.update(f"; {name} {None if array is None else array.shape}".encode())
        if array is not None:
            found.update(_canonical(array))
    return found.hexdigest()


def _canonical(array: Float32[np.ndarray, "L N"]) -> bytes:
    """Bytes that are equal for equal numbers: one NaN and one zero."""
    numbers = np.asarray(array, dtype="<f4")
    return np.where(np.isnan(numbers), np.float32(np.nan), numbers + np.float32(0)).astype("<f4").tobytes()
