"""The large fields of a shard, pixels and masks: one picture a row, read a compressed block at a time."""

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
"""Frames per HDF5 chunk: long enough to compress, short enough that a clip decodes little that it does not need."""

MAX_OPEN_FILES = 64
"""Per thread; operating systems commonly allow a process 1024."""


class StoredFrames:
    """A field of a shard with one picture a row. It may be read from several threads, be pickled, and be forked.

    Attributes:
        name: of the field, "pixels" or "mask".
        block: rows that the file compresses together; reading one costs as much as reading all of them.
        shape: of the field; rows come first.
    """

    def __init__(self, identity: FileIdentity, field: h5py.Dataset) -> None:
        """Note what is needed to read a field that `check_storage` has passed; no row is read.

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
            what: the part of the file that an error names.

        Raises:
            AimeError: if the file is damaged there.
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
        """Rows that may lie in several blocks; those of one alone are not copied."""
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
    """Turn whatever HDF5 raises on a damaged file into the one error that names the file."""
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
    """The HDF5 handles of one thread of one process; a handle that crosses a fork or a thread reads garbage."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.files: OrderedDict[FileIdentity, h5py.File] = OrderedDict()

    def get(self, identity: FileIdentity) -> h5py.File:
        """The handle of a file, opened if it is not, and now the last to be closed."""
        if self.process != os.getpid():
            self.process, self.files = os.getpid(), OrderedDict()
        file = self.files.pop(identity, None) or h5py.File(identity.path, "r")
        self.files[identity] = file
        if len(self.files) > MAX_OPEN_FILES:
            self.files.popitem(last=False)[1].close()
        return file


_open_files = _OpenFiles()
_files_of_blocks = OpenFiles()
