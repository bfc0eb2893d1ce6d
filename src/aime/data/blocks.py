"""Parallel decoding of compressed blocks of frames, without HDF5.

HDF5 has one global lock per process, so threads cannot decode in parallel with it. For blocks of the usual layout
(whole frames, gzip) HDF5 provides only their position in the file.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import h5py
import numpy as np
from jaxtyping import Int64, UInt8

from aime.data.fletcher32 import fletcher32
from aime.data.hdf5_bounds import Refused

T = TypeVar("T")

MAX_OPEN_FILES = 128
"""Per process, in addition to HDF5's open files."""


class Blocks(NamedTuple):
    """Positions of the blocks of a shard's pixels in its file."""

    offsets: Int64[np.ndarray, " K"]
    """The first byte of each block."""
    sizes: Int64[np.ndarray, " K"]
    """Compressed bytes of each."""
    shape: tuple[int, int, int, int]
    """Frames, height, width and channels of a block; the last block is padded."""
    checked: bool
    """Whether blocks end with a checksum of 4 bytes (fletcher32)."""

    @classmethod
    def of(cls, pixels: h5py.Dataset) -> Blocks | None:
        """The blocks of an open data set; None if it has another layout, which needs HDF5."""
        chunks = pixels.chunks
        filters = _filters(pixels)
        checked = filters[-1:] == [h5py.h5z.FILTER_FLETCHER32]
        is_gzip = filters[: len(filters) - checked] == [h5py.h5z.FILTER_DEFLATE]
        if chunks is None or chunks[1:] != pixels.shape[1:] or pixels.dtype != np.uint8 or not is_gzip:
            return None
        count = -(-pixels.shape[0] // chunks[0])
        offsets, sizes = np.zeros((2, count), np.int64)

        def note(block: h5py.h5d.StoreInfo) -> None:
            if not block.filter_mask:
                number = block.chunk_offset[0] // chunks[0]
                offsets[number], sizes[number] = block.byte_offset, block.size

        pixels.id.chunk_iter(note)
        return cls(offsets, sizes, chunks, checked) if sizes.all() else None

    def read(self, file: int, number: int) -> UInt8[np.ndarray, "L H W 3"]:
        """Decode one block from an open file; thread-safe.

        Raises:
            ValueError: if the block is damaged.
        """
        size = int(self.sizes[number])
        packed: bytes | memoryview = os.pread(file, size, int(self.offsets[number]))
        if self.checked:
            packed = _without_checksum(memoryview(packed))
        expected = int(np.prod(self.shape))
        try:
            frames, whole = _inflate(packed, expected)
        except zlib.error as error:
            raise ValueError(f"zlib: {error}") from error
        if len(frames) < expected or not whole:
            raise ValueError(f"a block of {expected} bytes is cut short or too long")
        return np.frombuffer(frames, np.uint8).reshape(self.shape)


def _filters(pixels: h5py.Dataset) -> list[int]:
    """The filters in order, without the shuffle, which does nothing to single bytes."""
    plist = pixels.id.get_create_plist()
    filters = [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
    return [each for each in filters if each != h5py.h5z.FILTER_SHUFFLE]


def _without_checksum(packed: memoryview) -> memoryview:
    """The bytes before the checksum.

    Raises:
        ValueError: if the checksum is wrong.
    """
    body, stored = packed[:-4], int.from_bytes(packed[-4:], "little")
    if len(packed) < 4 or fletcher32(body) != stored:
        raise ValueError("the checksum of a block of frames is wrong")
    return body


def _inflate(packed: bytes | memoryview, most: int) -> tuple[bytes, bool]:
    """At most `most` decompressed bytes, and whether they are all; the bound keeps a file from exhausting memory."""
    inflater = zlib.decompressobj()
    frames = inflater.decompress(packed, most)
    # zlib verifies its checksum only when it reaches the end
    return frames, inflater.eof or (not inflater.decompress(inflater.unconsumed_tail, 1) and inflater.eof)


class FileIdentity(NamedTuple):
    """Identifies a file; changes if the file is replaced under the same name."""

    path: Path
    """Absolute."""
    inode: int
    changed: int
    """Nanoseconds."""


class OpenFiles:
    """Descriptors of the most recently read files, shared by all threads of a process; valid after a fork."""

    def __init__(self, limit: int = MAX_OPEN_FILES) -> None:
        """Keep at most `limit` files open, besides those being read."""
        self.limit = limit
        self._lock = threading.Lock()
        # renewed after a fork: a thread that held it does not exist in the child
        os.register_at_fork(after_in_child=self._renew_lock)
        self._open: OrderedDict[FileIdentity, _Descriptor] = OrderedDict()

    def use(self, identity: FileIdentity, read: Callable[[int], T]) -> T:
        """The result of `read` on the file's descriptor.

        Raises:
            OSError: if the file cannot be opened.
            Refused: if the file was replaced.
        """
        with self._lock:
            descriptor = self._open.pop(identity, None) or _Descriptor(identity)
            self._open[identity] = descriptor
            if len(self._open) > self.limit:
                self._open.popitem(last=False)
        return read(descriptor.number)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()


class _Descriptor:
    """An open file, closed when the last reference is dropped."""

    def __init__(self, identity: FileIdentity) -> None:
        self.number = os.open(identity.path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self.number)
        if (status.st_ino, status.st_mtime_ns) != identity[1:]:
            raise Refused("was replaced by another file while it was in use, expected it unchanged; open it again")

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)
