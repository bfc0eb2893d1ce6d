"""Detection of JPEG pictures whose coded data is too short or too long.

A JPEG file has no checksum. libjpeg only warns about such data, and Pillow ignores the warning. Two checks detect it: a
change at the end of the data must change the picture, and data appended after it must not.
"""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image

_TAIL = 8
"""Number of bytes at the end of the data that are changed; small, to detect data that is slightly too long."""

_MOST_ZEROS = bytes(128)
_END_OF_BLOCK = 0
_SEQUENTIAL = (b"\xff\xc0", b"\xff\xc1")
_NOISES = tuple(np.random.default_rng(seed).integers(0, 255, 48, dtype=np.uint8).tobytes() for seed in range(4))
"""Data for the changes, without 255, which begins a marker. Several, as one may give the same picture."""


def check_end(content: bytes) -> None:
    """Check that the coded data ends where the picture does. Progressive pictures are not checked.

    Raises:
        ValueError: if it does not.
    """
    place = _coded_data(content)
    if place is None:
        return
    start, end = place
    if _MOST_ZEROS in content[start:end] and _zeros_are_texture(content[:start]):
        raise ValueError("its coded data contains a block of zeros")
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
        picture = image.tobytes()
    # encoders pad with ones or zeros
    last = start + len(content[start:end].rstrip(b"\x00\xff"))
    tail = max(last - _TAIL, start)
    # with codes of a single symbol (a picture of one colour) all data gives the same picture
    idle = all(picture == _with_noise(content, tail, last, noise) for noise in _NOISES)
    if idle and picture != _with_noise(content, start, last, _NOISES[0]):
        raise ValueError("its coded data continues after the end of the picture")
    if picture != _decoded(content[:end] + _NOISES[0] + content[end:]):
        raise ValueError("its coded data ends before the picture")


def _with_noise(content: bytes, first: int, last: int, noise: bytes) -> bytes | None:
    """The picture with a part of the data replaced."""
    length = last - first
    return _decoded(content[:first] + (noise * (length // len(noise) + 1))[:length] + content[last:])


def _coded_data(content: bytes) -> tuple[int, int] | None:
    """Start and end of the scan of a sequential picture; None for others."""
    at = 2
    sequential = False
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker, length = content[at : at + 2], int.from_bytes(content[at + 2 : at + 4], "big")
        sequential = sequential or marker in _SEQUENTIAL
        at += 2 + length
        if marker == b"\xff\xda":
            break
    else:
        return None
    # the scan ends at the next marker that is neither a stuffed byte nor a restart
    end = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]").search(content, at)
    if not sequential or end is None or end[0] != b"\xff\xd9":
        return None
    return at, end.start()


def _zeros_are_texture(header: bytes) -> bool:
    """Whether zero bits, in some Huffman table, do not mean the end of a block.

    A run of zeros is then a run of blocks with 63 equal coefficients, which no picture has.
    """
    for segment in re.finditer(rb"\xff\xc4(..)", header, re.DOTALL):
        at, stop = segment.end(), segment.start() + 2 + int.from_bytes(segment[1], "big")
        while at + 17 < stop:
            kind, count = header[at] >> 4, sum(header[at + 1 : at + 17])
            if kind == 1 and header[at + 17] != _END_OF_BLOCK:
                return True
            at += 17 + count
    return False


def _decoded(content: bytes) -> bytes | None:
    """The pixels; None if libjpeg fails."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as picture:
            return picture.tobytes()
    except (OSError, ValueError, SyntaxError):
        return None
