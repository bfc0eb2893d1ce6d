from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aime.data.action_scale import ActionScale
from aime.errors import AimeError

BOUNDS = st.tuples(st.floats(-1e4, 1e4), st.floats(1e-2, 1e4)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(st.lists(BOUNDS, min_size=1, max_size=5), st.integers(0, 2**32))
def test_there_and_back(bounds: list[tuple[float, float]], seed: int) -> None:
    low, high = np.array(bounds).T
    scale = ActionScale(tuple(low.tolist()), tuple(high.tolist()))
    action = np.random.default_rng(seed).uniform(low, high, (7, len(bounds)))
    unit = scale.to_unit(action)
    assert unit.dtype == np.float32 and np.abs(unit).max() <= 1
    np.testing.assert_allclose(scale.to_source(unit), action, atol=1e-6 * (np.abs(bounds).max() + 1))
    assert scale.outside(action) == 0
    assert scale.outside(np.stack([low - 1, high + 1])) == 2 * len(bounds)
    assert ActionScale.of_attributes(scale.attributes()) == scale


def test_the_ends_are_minus_one_and_one_and_nan_stays() -> None:
    scale = ActionScale((0.0, 3.0), (10.0, 3.0))
    action = np.array([[0, 3], [10, 3], [np.nan, np.nan]])
    np.testing.assert_array_equal(scale.to_unit(action), [[-1, 0], [1, 0], [np.nan, np.nan]])
    np.testing.assert_array_equal(scale.to_source(scale.to_unit(action)), action)


def test_what_is_no_range_is_refused() -> None:
    for low, high in (((0.0,), (-1.0,)), ((0.0,), (np.inf,)), ((np.nan,), (1.0,)), ((0.0, 0.0), (1.0,))):
        with pytest.raises(AimeError, match="expected finite numbers"):
            ActionScale(low, high)
    assert ActionScale.of_attributes({}) is None
    with pytest.raises(AimeError, match="import the data set again"):
        ActionScale.of_attributes({"action_low": "[1", "action_high": json.dumps([2])})
