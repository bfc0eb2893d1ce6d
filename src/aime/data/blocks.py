"""Compressed blocks of frames, read past HDF5: several threads decode at once.

HDF5 does one thing at a time in a process, so that a second thread that decodes frames by it only waits for the first.
Blocks of the usual layout (whole frames, gzip) need it only to say where in the file they lie.
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
"""Per process, beside those that HDF5 keeps open."""


class Blocks(NamedTuple):
    """Where the blocks of a shard's pixels lie in its file."""

    offsets: Int64[np.ndarray, " K"]
    """The first byte of each block."""
    sizes: Int64[np.ndarray, " K"]
    """Compressed bytes of each."""
    shape: tuple[int, int, int, int]
    """Frames, height, width and channels of a block; the last block is filled up."""
    checked: bool
    """Whether a block ends with a checksum of 4 bytes (fletcher32)."""

    @classmethod
    def of(cls, pixels: h5py.Dataset) -> Blocks | None:
        """The blocks of an open data set; None where it is laid out in another way, which is left to HDF5."""
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
        """Decode one block from an open file; another thread may do so at the same time.

        Raises:
            ValueError: if the file is damaged there.
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
    """What is done to the bytes, in order, but for a shuffle, which changes nothing of single bytes."""
    plist = pixels.id.get_create_plist()
    filters = [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
    return [each for each in filters if each != h5py.h5z.FILTER_SHUFFLE]


def _without_checksum(packed: memoryview) -> memoryview:
    """The bytes before a checksum that holds for them.

    Raises:
        ValueError: if it does not.
    """
    body, stored = packed[:-4], int.from_bytes(packed[-4:], "little")
    if len(packed) < 4 or fletcher32(body) != stored:
        raise ValueError("the checksum of a block of frames is wrong")
    return body


def _inflate(packed: bytes | memoryview, most: int) -> tuple[bytes, bool]:
    """At most so many bytes, and whether they are all: what a file says must not decide how much memory is taken."""
    inflater = zlib.decompressobj()
    frames = inflater.decompress(packed, most)
    # the checksum at the end is only compared when the end is reached
    return frames, inflater.eof or (not inflater.decompress(inflater.unconsumed_tail, 1) and inflater.eof)


class FileIdentity(NamedTuple):
    """What tells a file from another one under its old name."""

    path: Path
    """Absolute."""
    inode: int
    changed: int
    """Nanoseconds."""


class OpenFiles:
    """Descriptors of the files that were read last, for all threads of a process; good after a fork."""

    def __init__(self, limit: int = MAX_OPEN_FILES) -> None:
        """None open yet, and at most `limit` later, but for those that are being read."""
        self.limit = limit
        self._lock = threading.Lock()
        # another thread may hold it while a process forks, and is not there in the child to let go
        os.register_at_fork(after_in_child=self._renew_lock)
        self._open: OrderedDict[FileIdentity, _Descriptor] = OrderedDict()

    def use(self, identity: FileIdentity, read: Callable[[int], T]) -> T:
        """What `read` makes of the file's descriptor, which stays open meanwhile.

        Raises:
            OSError: if the file cannot be opened, or is another one by now.
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
    """An open file, closed when the last thread that reads it has let go of it."""

    def __init__(self, identity: FileIdentity) -> None:
        self.number = os.open(identity.path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self.number)
        if (status.st_ino, status.st_mtime_ns) != identity[1:]:
            raise Refused("was replaced by another file while it was in use, expected it unchanged; open it again")

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)
