"""Damage in JPEG pictures that decoders conceal: data that end before or after the picture does.

A JPEG file has no checksum, and libjpeg only warns when the coded data are too long or too short for the picture, which
Pillow does not pass on. Both show in the outcome: what stands at the end of the data must matter to the picture, and
what is added after it must not.
"""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image

_TAIL = 8
"""Bytes at the end of the data that must matter: few, so that data which go on for a little longer are found."""

_MOST_ZEROS = bytes(128)
_END_OF_BLOCK = 0
_SEQUENTIAL = (b"\xff\xc0", b"\xff\xc1")
_NOISES = tuple(np.random.default_rng(seed).integers(0, 255, 48, dtype=np.uint8).tobytes() for seed in range(4))
"""Without 255, which would begin a marker. The first alone might leave the picture as it is by chance."""


def check_end(content: bytes) -> None:
    """Look whether the coded data of a picture end where the picture does; progressive ones are not looked at.

    Raises:
        ValueError: if they do not.
    """
    place = _coded_data(content)
    if place is None:
        return
    start, end = place
    if _MOST_ZEROS in content[start:end] and _zeros_are_texture(content[:start]):
        raise ValueError("its coded data hold a block of zeros")
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
        picture = image.tobytes()
    # an encoder may fill up with ones or zeros
    last = start + len(content[start:end].rstrip(b"\x00\xff"))
    tail = max(last - _TAIL, start)
    # codes of a single symbol, as of a picture of one colour, make the same picture of any data
    idle = all(picture == _with_noise(content, tail, last, noise) for noise in _NOISES)
    if idle and picture != _with_noise(content, start, last, _NOISES[0]):
        raise ValueError("its coded data go on after the picture's end")
    if picture != _decoded(content[:end] + _NOISES[0] + content[end:]):
        raise ValueError("its coded data end before the picture does")


def _with_noise(content: bytes, first: int, last: int, noise: bytes) -> bytes | None:
    """The picture with other data in one stretch."""
    length = last - first
    return _decoded(content[:first] + (noise * (length // len(noise) + 1))[:length] + content[last:])


def _coded_data(content: bytes) -> tuple[int, int] | None:
    """Where the one scan of a sequential picture begins and ends; None for others."""
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
    # the next marker that is neither a stuffed byte nor a restart ends the scan
    end = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]").search(content, at)
    if not sequential or end is None or end[0] != b"\xff\xd9":
        return None
    return at, end.start()


def _zeros_are_texture(header: bytes) -> bool:
    """Whether zero bits, in some of the Huffman tables, mean anything else than that a block ends.

    A run of zeros is then a run of blocks whose 63 coefficients all are alike, as no picture has them.
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
    """The pixels; None where libjpeg gives up."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as picture:
            return picture.tobytes()
    except (OSError, ValueError, SyntaxError):
        return None
