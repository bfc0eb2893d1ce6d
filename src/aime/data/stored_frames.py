"""The large fields of a shard, pixels and masks, with one image per row, read by compressed blocks."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
from jaxtyping import UInt8

from aime.data.blocks import Blocks, FileIdentity, OpenFiles
from aime.data.hdf5_bounds import UNREADABLE, complaint, read_rows
from aime.errors import AimeError

CHUNK_STEPS = 16
"""Frames per HDF5 chunk: a compromise between compression and unneeded decoding for a clip."""

MAX_OPEN_FILES = 64
"""Per thread; a common limit per process is 1024."""


class StoredFrames:
    """A field of a shard with one image per row; thread-safe, can be pickled, and usable after a fork.

    Attributes:
        name: of the field, "pixels" or "mask".
        block: rows per compressed block, which is always decoded as a whole.
        shape: of the field; rows come first.
    """

    def __init__(self, identity: FileIdentity, field: h5py.Dataset) -> None:
        """Prepare to read a field that has passed `check_storage`; no row is read.

        Args:
            identity: of the file.
            field: of the open file.
        """
        self._identity = identity
        self.name = field.name.removeprefix("/")
        self.block = int(field.chunks[0]) if field.chunks else CHUNK_STEPS
        self.shape: tuple[int, ...] = tuple(field.shape)
        self._blocks: Blocks | Literal["unknown"] | None = "unknown"

    def read(self, start: int, stop: int, what: str) -> UInt8[np.ndarray, "L *shape"]:
        """Rows `start` to `stop` (exclusive, clamped to the number of rows).

        Args:
            start: 0 or more.
            stop: `start` or more.
            what: the part of the file, for error messages.

        Raises:
            AimeError: if the file is damaged.
        """
        stop = min(stop, self.shape[0])
        with reading(self._identity.path, what):
            if isinstance(self._blocks, str):
                with h5py.File(self._identity.path, "r") as file:
                    self._blocks = Blocks.of(file[self.name])
            if self._blocks is not None and start < stop:
                return self._rows_of_blocks(self._blocks, start, stop)
            return read_rows(_open_files.get(self._identity)[self.name], start, stop)

    def _rows_of_blocks(self, blocks: Blocks, start: int, stop: int) -> UInt8[np.ndarray, "L *shape"]:
        """Rows from one or more blocks; rows of a single block are not copied."""
        size, first = self.block, start // self.block
        if stop <= (first + 1) * size:
            block = _files_of_blocks.use(self._identity, partial(blocks.read, number=first))
            return block[start - first * size : stop - first * size]
        rows = np.empty((stop - start, *blocks.shape[1:]), np.uint8)
        for number in range(first, -(-stop // size)):
            low, high = max(start, number * size), min(stop, (number + 1) * size)
            block = _files_of_blocks.use(self._identity, partial(blocks.read, number=number))
            rows[low - start : high - start] = block[low - number * size : high - number * size]
        return rows


@contextlib.contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Convert HDF5's errors on a damaged file to an `AimeError` that names the file."""
    try:
        yield
    except AimeError:
        raise
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.errno is None and not h5py.is_hdf5(path):
            raise AimeError(
                f"{path}: is not an HDF5 file, expected a shard of episodes; convert or remove it"
            ) from error
        raise AimeError(f"{path}: {complaint(error, what)}") from error


class _OpenFiles(threading.local):
    """The HDF5 handles of one thread of one process; handles must not be shared across threads or forks."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.files: OrderedDict[FileIdentity, h5py.File] = OrderedDict()

    def get(self, identity: FileIdentity) -> h5py.File:
        """The handle of a file, opened if necessary; the least recently used handle is closed."""
        if self.process != os.getpid():
            self.process, self.files = os.getpid(), OrderedDict()
        file = self.files.pop(identity, None) or h5py.File(identity.path, "r")
        self.files[identity] = file
        if len(self.files) > MAX_OPEN_FILES:
            self.files.popitem(last=False)[1].close()
        return file


_open_files = _OpenFiles()
_files_of_blocks = OpenFiles()
