"""Intervals over seeds and episodes, against the usual bootstrap and against spreads that are known."""

from __future__ import annotations

import numpy as np
import pytest

from aime.agents.playing import bootstrap
from aime.benchmarking.dmc_vb.intervals import known_mean, mean_interval, r_squared_intervals
from aime.inference.probe import ProbeScores


def test_one_seed_has_the_usual_interval() -> None:
    values = np.random.default_rng(1).gamma(2.0, 100.0, 12)
    usual, found = bootstrap(values), mean_interval(values[None])
    assert found.mean == usual.mean
    # both are drawn: 10,000 rounds know a percentile to a few hundredths of the interval
    width = usual.high - usual.low
    assert found.low == pytest.approx(usual.low, abs=0.05 * width)
    assert found.high == pytest.approx(usual.high, abs=0.05 * width)


def test_seeds_that_differ_widen_the_interval() -> None:
    alike = np.tile(np.arange(10.0), (3, 1))
    apart = alike + np.array([-20.0, 0.0, 20.0])[:, None]
    near, far = mean_interval(alike), mean_interval(apart)
    assert near.mean == far.mean == 4.5
    # with 3 seeds drawn, one in 27 samples has the same extreme seed three times: beyond the 2.5th percentile
    assert far.low < -14 < 2 < near.low and near.high < 7 < 22 < far.high


def test_seeds_alone_are_drawn_where_episodes_do_not_differ() -> None:
    found = mean_interval(np.array([[1.0] * 5, [3.0] * 5]))
    assert (found.mean, found.low, found.high) == (2.0, 1.0, 3.0)


def scores(error: float, episodes: int = 6) -> ProbeScores:
    """Two columns of variance 1 and one that stands still; the second is foretold with that squared error."""
    frames = (100,) * episodes
    return ProbeScores(
        (0, 1, 2),
        frames,
        ((0.0, 0.0, 0.0),) * episodes,
        ((100.0, 100.0, 0.0),) * episodes,
        ((0.0, 100 * error, 0.0),) * episodes,
    )


def test_scores_are_means_over_columns_that_vary_and_over_seeds() -> None:
    whole, second, still = r_squared_intervals([scores(0.2), scores(0.4)], [[0, 1, 2], [1], [2]])
    assert whole.mean == pytest.approx((0.9 + 0.8) / 2)
    assert second.mean == pytest.approx(0.7)
    assert [second.low, second.high] == pytest.approx([0.6, 0.8])
    assert np.isnan([still.mean, still.low, still.high]).all()


def test_means_of_what_is_known() -> None:
    found = known_mean(np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan]]))
    assert found[0] == 2.0 and np.isnan(found[1])
