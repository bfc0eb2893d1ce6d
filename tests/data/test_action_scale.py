from __future__ import annotations

import json

import numpy as np
import pytest
import torch
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
    assert unit.dtype == np.float64 and np.abs(unit).max() <= 1
    np.testing.assert_allclose(scale.to_source(unit), action, atol=1e-12 * (np.abs(bounds).max() + 1))
    assert scale.outside(action) == 0
    assert scale.outside(np.stack([low - 1, high + 1])) == 2 * len(bounds)
    assert ActionScale.of_attributes(scale.attributes()) == scale


def test_the_ends_are_minus_one_and_one_and_nan_stays() -> None:
    scale = ActionScale((0.0, 3.0), (10.0, 3.0))
    action = np.array([[0, 3], [10, 3], [np.nan, np.nan]])
    np.testing.assert_array_equal(scale.to_unit(action), [[-1, 0], [1, 0], [np.nan, np.nan]])
    np.testing.assert_array_equal(scale.to_source(scale.to_unit(action)), action)


@pytest.mark.parametrize("convert", ["to_unit", "to_source"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_both_ways_give_back_the_kind_that_they_are_given(convert: str, dtype: type) -> None:
    scale = ActionScale((-3.0, 0.0, 1.0), (3.0, 8.0, 1.0))
    action = np.array([[-1.5, 0.5, 1.0], [0.25, 0.75, 1.0]])
    expected = {
        "to_unit": [[-0.5, -0.875, 0], [13 / 12 - 1, -0.8125, 0]],
        "to_source": [[-4.5, 6, 1], [0.75, 7, 1]],
    }[convert]
    function = getattr(scale, convert)
    array = function(action.astype(dtype))
    assert type(array) is np.ndarray and array.dtype == dtype
    np.testing.assert_allclose(array, expected, rtol=2e-3 if dtype is np.float16 else 1e-6)
    tensor = function(torch.from_numpy(action.astype(dtype)).requires_grad_())
    assert isinstance(tensor, torch.Tensor) and tensor.dtype == torch.from_numpy(array).dtype and tensor.requires_grad
    np.testing.assert_array_equal(tensor.detach().numpy(), array)
    listed = function(action.tolist())
    assert type(listed) is np.ndarray and listed.dtype == np.float64
    assert function(torch.ones(4, 2, 3, dtype=torch.long)).dtype == torch.float32
    assert function(torch.ones(4, 2, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16
    with pytest.raises(AimeError, match="expected 3 numbers in the last axis"):
        function(action[:, :1])


def test_what_is_no_range_is_refused() -> None:
    for low, high in (((0.0,), (-1.0,)), ((0.0,), (np.inf,)), ((np.nan,), (1.0,)), ((0.0, 0.0), (1.0,))):
        with pytest.raises(AimeError, match="expected finite numbers"):
            ActionScale(low, high)
    assert ActionScale.of_attributes({}) is None
    with pytest.raises(AimeError, match="import the data set again"):
        ActionScale.of_attributes({"action_low": "[1", "action_high": json.dumps([2])})
