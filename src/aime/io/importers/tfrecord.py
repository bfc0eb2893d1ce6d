"""Reading of TFRecord files, a sequence of records with checksums.

uint64 length | uint32 masked CRC-32C of the length | bytes | uint32 masked CRC-32C of the bytes    (little-endian)
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from aime.io.importers.crc32c import masked_crc32c
from aime.io.importers.files import opened
from aime.io.importers.interface import BadEpisode

_HEADER, _FOOTER = struct.Struct("<QI"), struct.Struct("<I")


class Extent(NamedTuple):
    """The position of a record's bytes in its file."""

    offset: int
    length: int


def scan(path: Path) -> tuple[list[Extent], BadEpisode | None]:
    """The positions of a file's records from their headers, and the error at which the list ends, if any.

    After a damaged header, the start of the next record is unknown.
    """
    extents: list[Extent] = []
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        offset = 0
        while offset < size:
            try:
                extents.append(_extent(path, file, offset, size))
            except BadEpisode as bad:
                return extents, bad
            offset = extents[-1].offset + extents[-1].length + _FOOTER.size
            file.seek(offset)
    return extents, None


def _extent(path: Path, file: BinaryIO, offset: int, size: int) -> Extent:
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise _truncated(path, offset, f"{len(header)} bytes of a header", f"{_HEADER.size}")
    length, checksum = _HEADER.unpack(header)
    if masked_crc32c(header[:8]) != checksum:
        raise BadEpisode(
            f"{path} at byte {offset}: the checksum of a record's length is wrong, expected "
            f"{masked_crc32c(header[:8]):#010x}; the rest of the file cannot be read: download it again, or --skip-bad"
        )
    needed = offset + _HEADER.size + length + _FOOTER.size
    if needed > size:
        raise _truncated(path, offset, f"{size - offset} bytes of a record", f"{needed - offset}")
    return Extent(offset + _HEADER.size, length)


def _truncated(path: Path, offset: int, found: str, expected: str) -> BadEpisode:
    return BadEpisode(
        f"{path} at byte {offset}: truncated, {found}, expected {expected}; download it again, or --skip-bad"
    )


def record(path: Path, extent: Extent) -> memoryview:
    """The checked bytes of a record, in memory-mapped pages of the file.

    Raises:
        BadEpisode: if the file has become shorter, or the checksum is wrong.
    """
    with opened(path) as file:
        try:
            pages = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:
            raise BadEpisode(f"{path}: cannot be mapped ({error}), expected records; download it again") from error
    end = extent.offset + extent.length
    if end + _FOOTER.size > len(pages):
        raise _truncated(path, extent.offset, f"{len(pages)} bytes in all", f"{end + _FOOTER.size}")
    body = pages[extent.offset : end]
    (checksum,) = _FOOTER.unpack(pages[end : end + _FOOTER.size])
    if masked_crc32c(body) != checksum:
        raise BadEpisode(
            f"{path} at byte {extent.offset}: the checksum of a record of {extent.length} bytes is wrong "
            f"({checksum:#010x} is stored); it is damaged: download it again, or --skip-bad"
        )
    return body
