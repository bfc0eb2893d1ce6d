"""Counter-based random numbers: functions of a key and a counter, without a state."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64, UInt64

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2⁶⁴ divided by the golden ratio, odd: consecutive multiples are well spread."""


def mix64(words: UInt64[np.ndarray, "*N"]) -> UInt64[np.ndarray, "*N"]:
    """A bijection of 64-bit words; each output bit depends on all input bits.

    Source: the finaliser of SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators").
    """
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def uniforms(
    keys: UInt64[np.ndarray, " N"], counters: Int64[np.ndarray, " N"], width: int
) -> Float32[np.ndarray, "N width"]:
    """Independent uniform numbers in (0, 1), `[N,width]`; row n depends on key n and counter n only.

    They are odd multiples of 2⁻²⁴, so that logarithms and quantiles are finite.

    Args:
        keys: of N streams.
        counters: the position in each stream, 0 or more.
        width: numbers per position, 1 or more.
    """
    positions = mix64(keys ^ mix64((counters.astype(np.uint64) + np.uint64(1)) * GOLDEN))
    words = mix64(positions[:, None] + np.arange(1, width + 1, dtype=np.uint64) * GOLDEN)
    return ((words >> np.uint64(41)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-23)
