"""Random numbers that follow from a key and a counter: nothing has a state, so any of them can be drawn again."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64, UInt64

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2⁶⁴ over the golden ratio, odd: its multiples lie far apart."""


def mixed(words: UInt64[np.ndarray, "*N"]) -> UInt64[np.ndarray, "*N"]:
    """A bijection of 64-bit words, `[...]`, after which each bit depends on all.

    Source: the finaliser of SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators").
    """
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def uniforms(
    keys: UInt64[np.ndarray, " N"], counters: Int64[np.ndarray, " N"], width: int
) -> Float32[np.ndarray, "N width"]:
    """Numbers in (0, 1), independent and uniform, `[N,width]`; row n is a function of key n and counter n alone.

    They lie on a grid of 2⁻²³, off its ends, so that their logarithms and quantiles are finite.

    Args:
        keys: of N streams.
        counters: the place in each stream, 0 or more.
        width: numbers at each place, 1 or more.
    """
    places = mixed(keys ^ mixed((counters.astype(np.uint64) + np.uint64(1)) * GOLDEN))
    words = mixed(places[:, None] + np.arange(1, width + 1, dtype=np.uint64) * GOLDEN)
    return ((words >> np.uint64(41)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-23)
