"""Safe reading of untrusted HDF5 files, with bounded memory.

Refused before HDF5 reads any data: data sets in other files (external storage, virtual data sets, links), missing
rows, chunks that decompress beyond memory, and filters that HDF5 would load as a library.
"""

from __future__ import annotations

import errno
import itertools
import math
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from aime.errors import one_line

MAX_CHUNK_BYTES = 256 * 2**20
"""Largest chunk: HDF5 holds a whole chunk, and copies of it, to read one number."""

MAX_FIELD_BYTES = 2**30
"""Largest field that is read as a whole."""

MAX_INFLATED_BYTES = 2**27
"""Largest compressed field that is read as a whole, unless `MAX_INFLATION` allows more."""

MAX_INFLATION = 64
"""Largest compression ratio of a larger field; real states and actions compress by less than 10."""

MAX_PICTURE_BYTES = 2**28
"""Largest row of variable length."""

_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}

UNREADABLE = (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, MemoryError, zlib.error)
"""Errors that reading a damaged file may raise."""


class Refused(ValueError):
    """A refused file; the text states what was found, what was expected, and the remedy."""


def complaint(error: BaseException, what: str = "it") -> str:
    """The reason why a file could not be read, as text to follow its path and a colon.

    Args:
        error: raised by reading it.
        what: the part that was read.
    """
    if isinstance(error, Refused):
        return str(error)
    found = one_line(error)
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EAGAIN, errno.EDEADLK) or "unable to lock file" in found:
        return "is in use by another program, which has it open to write, expected it closed; close it there, or wait"
    if number in (errno.EMFILE, errno.ENFILE):
        return "cannot be opened: too many files are open, expected fewer; raise the limit with 'ulimit -n 4096'"
    if number in (errno.EACCES, errno.EPERM):
        return "may not be read: permission denied; change its permissions with chmod"
    if isinstance(error, MemoryError):
        return f"{what} cannot be read: the memory is full; close other programs"
    return f"{what} cannot be read ({found}), expected a whole HDF5 file; it is damaged, copy or record it again"


def own_object(group: Any, name: str) -> Any:
    """The group or data set of that name, or None; every link in its path must be a hard link.

    Raises:
        Refused: if a link is soft or external.
    """
    for part in filter(None, name.split("/")):
        if not isinstance(group, h5py.Group) or part not in group:
            return None
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise Refused(f"'{name}' lies in another file or place, expected all data in their own; copy it")
        group = group[part]
    return group


def scalar_attributes(attributes: h5py.AttributeManager) -> dict[str, str | int | float | bool]:
    """The attributes that are one text or number; others are not read."""
    found: dict[str, str | int | float | bool] = {}
    for name in attributes:
        if attributes.get_id(name).shape == ():
            value = attributes[name]
            plain = value.item() if isinstance(value, np.generic) else value
            if isinstance(plain, str | int | float | bool):
                found[name] = plain
    return found


def check_storage(dataset: h5py.Dataset) -> None:
    """Refuse a data set that lies in another file, is incomplete, or has oversized chunks or unknown filters.

    Raises:
        Refused: with the reason.
    """
    name = dataset.name
    if dataset.external or dataset.is_virtual:
        raise Refused(f"'{name}' lies in another file, expected all data in this one; copy it into one file")
    if dataset.shape is None:
        raise Refused(f"'{name}' is empty, expected an array; write the file again")
    unknown = set(_filters_of(dataset)) - _FILTERS
    if unknown:
        raise Refused(
            f"'{name}' is compressed by filter {min(unknown)}, expected gzip, lzf or none; h5repack "
            "-f GZIP=1 OLD.h5 NEW.h5 makes such a file"
        )
    _check_written(dataset)


def _check_written(dataset: h5py.Dataset) -> None:
    name, chunks = dataset.name, dataset.chunks
    if chunks is None:
        if dataset.id.get_storage_size() < dataset.nbytes and h5py.check_vlen_dtype(dataset.dtype) is None:
            raise Refused(f"'{name}' claims {dataset.nbytes} bytes that were never written; record it again")
        return
    if math.prod(chunks) * dataset.dtype.itemsize > MAX_CHUNK_BYTES:
        raise Refused(
            f"'{name}' is stored in chunks of {math.prod(chunks) * dataset.dtype.itemsize / 2**20:.0f} MB, expected "
            f"{MAX_CHUNK_BYTES / 2**20:.0f} at most; write it with chunks of some frames"
        )
    expected = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, chunks, strict=True))
    if (written := dataset.id.get_num_chunks()) != expected:
        raise Refused(f"'{name}' has {written} of {expected} chunks, the others were never written; record it again")


def check_whole(dataset: h5py.Dataset) -> None:
    """Refuse to read a whole field that is too large, given its size in the file.

    Raises:
        Refused: with its size.
    """
    compressed = _is_gzip(dataset) or dataset.compression is not None
    most = MAX_FIELD_BYTES
    if compressed:
        most = min(most, max(MAX_INFLATED_BYTES, MAX_INFLATION * dataset.id.get_storage_size()))
    if dataset.nbytes > most:
        raise Refused(
            f"'{dataset.name}' has {dataset.nbytes / 2**20:.0f} MB, expected {most / 2**20:.0f} at most; split the file"
        )


def read_rows(dataset: h5py.Dataset, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Rows of a data set that has passed `check_storage`.

    Raises:
        Refused: if a chunk decompresses beyond its size.
    """
    stop = len(dataset) if stop is None else min(stop, len(dataset))
    if _is_gzip(dataset) and start < stop:
        _check_inflation(dataset, start, stop)
    return np.asarray(dataset[start:stop])


def read_bytes(dataset: h5py.Dataset, row: int) -> bytes:
    """A row of a data set of variable-length byte strings that has passed `check_storage`.

    The stated length is checked first, because HDF5 allocates it before reading.

    Raises:
        Refused: if the stated length exceeds the file's size.
    """
    length = int.from_bytes(_reference(dataset, row)[:4], "little")
    most = min(MAX_PICTURE_BYTES, Path(dataset.file.filename).stat().st_size)
    if length > most:
        raise Refused(
            f"'{dataset.name}', row {row}, has {length} bytes, expected {most} at most; it is damaged, copy it"
        )
    return np.asarray(dataset[row]).tobytes()


def _reference(dataset: h5py.Dataset, row: int) -> bytes:
    """The stored reference of a variable-length row: its length, little-endian, then its position."""
    size = dataset.id.get_type().get_size()
    if dataset.chunks is None:
        with open(dataset.file.filename, "rb") as file:
            file.seek(dataset.id.get_offset() + row * size)
            return file.read(size)
    filters, length = _filters_of(dataset), dataset.chunks[0]
    if h5py.h5z.FILTER_LZF in filters:
        raise Refused(f"'{dataset.name}' holds rows of variable length in lzf, expected gzip or none; h5repack it")
    skipped, chunk = dataset.id.read_direct_chunk((row // length * length,))
    for number, kind in reversed(list(enumerate(filters))):  # inverse filters in reverse order
        if skipped >> number & 1:
            continue
        if kind == h5py.h5z.FILTER_DEFLATE:
            chunk = zlib.decompressobj().decompress(chunk, length * size)
        elif kind == h5py.h5z.FILTER_SHUFFLE:
            chunk = np.frombuffer(chunk, np.uint8).reshape(size, -1).T.tobytes()
    at = row % length * size
    return bytes(chunk[at : at + size])


def _filters_of(dataset: h5py.Dataset) -> list[int]:
    """HDF5's numbers of the filters, in the order of writing."""
    plist = dataset.id.get_create_plist()
    return [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]


def _is_gzip(dataset: h5py.Dataset) -> bool:
    return dataset.chunks is not None and dataset.compression == "gzip"


def _check_inflation(dataset: h5py.Dataset, start: int, stop: int) -> None:
    """Refuse chunks that decompress beyond their size, which HDF5 itself does not check."""
    chunks, size = dataset.chunks, math.prod(dataset.chunks) * dataset.dtype.itemsize
    inflates = 1 << _filters_of(dataset).index(h5py.h5z.FILTER_DEFLATE)
    rows = range(start // chunks[0] * chunks[0], stop, chunks[0])
    others = (range(0, length, chunk) for length, chunk in zip(dataset.shape[1:], chunks[1:], strict=True))
    for place in itertools.product(rows, *others):
        skipped, packed = dataset.id.read_direct_chunk(place)
        if not skipped & inflates and len(zlib.decompressobj().decompress(packed, size + 1)) > size:
            raise Refused(f"'{dataset.name}' inflates to more than its size at row {place[0]}; it is damaged, copy it")
