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

_TAIL = 48
_SEQUENTIAL = (b"\xff\xc0", b"\xff\xc1")
_NOISE = np.random.default_rng(0).integers(0, 255, _TAIL, dtype=np.uint8).tobytes()
"""Without 255, which would begin a marker."""


def check_end(content: bytes) -> None:
    """Look whether the coded data of a picture end where the picture does; progressive ones are not looked at.

    Raises:
        ValueError: if they do not.
    """
    place = _coded_data(content)
    if place is None:
        return
    start, end = place
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
        picture = image.tobytes()
    # an encoder may fill up with ones or zeros
    last = start + len(content[start:end].rstrip(b"\x00\xff"))
    first = max(last - _TAIL, start)
    # codes of a single symbol, as of a picture of one colour, make the same picture of any data
    if picture == _with_noise(content, first, last) != _with_noise(content, start, last):
        raise ValueError("its coded data go on after the picture's end")
    if picture != _decoded(content[:end] + _NOISE + content[end:]):
        raise ValueError("its coded data end before the picture does")


def _with_noise(content: bytes, first: int, last: int) -> bytes | None:
    """The picture with other data in one stretch."""
    noise = (_NOISE * ((last - first) // _TAIL + 1))[: last - first]
    return _decoded(content[:first] + noise + content[last:])


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


def _decoded(content: bytes) -> bytes | None:
    """The pixels; None where libjpeg gives up."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as picture:
            return picture.tobytes()
    except (OSError, ValueError, SyntaxError):
        return None
