"""Fletcher's checksum as HDF5's filter computes it: over 16-bit words, highest byte first, modulo 65535."""

from __future__ import annotations

import numpy as np

_WORDS = 2**17
"""Words at a time: the weighted sum of so many stays below 2^53, where float64 counts exactly."""

_WEIGHTS = np.arange(_WORDS, 0, -1, dtype=np.float64)


def fletcher32(data: bytes | memoryview) -> int:
    """The checksum of some bytes; a last single byte counts as a word's highest."""
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
    """Modulo 65535 by folding, of which 65535 comes out in place of 0 unless the sum was 0 itself.

    Words with the lowest byte first are 256 times those with the highest first, modulo 65535.
    """
    rest = total * 256 % 65535
    return 65535 if rest == 0 and total else rest
