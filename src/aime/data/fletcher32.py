"""Fletcher's checksum as in HDF5's filter: over big-endian 16-bit words, modulo 65535."""

from __future__ import annotations

import numpy as np

_WORDS = 2**17
"""Words per step: their weighted sum stays below 2^53, where float64 is exact for integers."""

_WEIGHTS = np.arange(_WORDS, 0, -1, dtype=np.float64)


def fletcher32(data: bytes | memoryview) -> int:
    """The checksum of bytes; an odd last byte is the high byte of a word."""
    if len(data) % 2:
        data = bytes(data) + b"\0"
    words = np.frombuffer(data, "<u2")
    first = second = 0
    for start in range(0, len(words), _WORDS):
        part = words[start : start + _WORDS].astype(np.float64)
        second += len(part) * first + int(part @ _WEIGHTS[_WORDS - len(part) :])
        first += int(part.sum())
    return _folded(second) << 16 | _folded(first)


def _folded(total: int) -> int:
    """The total modulo 65535, with 65535 instead of 0 for a nonzero total, as HDF5's folding gives.

    The factor 256 converts sums of little-endian words to big-endian ones, modulo 65535.
    """
    rest = total * 256 % 65535
    return 65535 if rest == 0 and total else rest
