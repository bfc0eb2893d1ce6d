from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from aime.primitives.counter_noise import mix64, uniforms


@settings(deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(1, 40))
def test_a_row_depends_on_its_key_and_counter_alone(key: int, counter: int, width: int) -> None:
    keys, counters = np.array([5, key, 9], np.uint64), np.array([0, counter, 3], np.int64)
    together, alone = uniforms(keys, counters, width), uniforms(keys[1:2], counters[1:2], width)
    np.testing.assert_array_equal(together[1:2], alone)
    assert together.dtype == np.float32 and (together > 0).all() and (together < 1).all()


def test_numbers_are_uniform_along_keys_counters_and_places() -> None:
    size = 20_000
    along_keys = uniforms(np.arange(size, dtype=np.uint64), np.zeros(size, np.int64), 1)[:, 0]
    along_counters = uniforms(np.zeros(size, np.uint64), np.arange(size, dtype=np.int64), 1)[:, 0]
    along_places = uniforms(np.zeros(1, np.uint64), np.zeros(1, np.int64), size)[0]
    for each in (along_keys, along_counters, along_places):
        assert kstest(each, "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(each[1:], each[:-1])[0, 1]) < 0.03
    assert abs(np.corrcoef(along_keys, along_counters)[0, 1]) < 0.03


def test_mixing_loses_no_word() -> None:
    words = np.arange(100_000, dtype=np.uint64) << np.uint64(40)
    assert len(np.unique(mix64(words))) == len(words)
