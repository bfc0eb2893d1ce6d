"""Bootstrap intervals compared with scipy's, and their coverage of known values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from aime.primitives.intervals import bounds_of, known_mean, mean_interval, over_seeds, pooled, resampled_counts


@pytest.mark.parametrize("episodes", [5, 12, 48])
def test_the_mean_has_the_interval_of_scipy_at_levels_widened_as_the_t_distribution_is(episodes: int) -> None:
    values = np.random.default_rng(episodes).lognormal(size=episodes)
    found = mean_interval(values, rounds=20_000)
    tail = stats.norm.cdf(-stats.t.ppf(0.975, episodes - 1) * math.sqrt(episodes / (episodes - 1)))
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, confidence_level=1 - 2 * tail, method="percentile", rng=1
    ).confidence_interval
    width = theirs.high - theirs.low
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(theirs.low, abs=0.04 * width)
    assert found.high == pytest.approx(theirs.high, abs=0.04 * width)


def test_a_ratio_of_means_resamples_both_together_as_scipy_does() -> None:
    random = np.random.default_rng(0)
    below = random.lognormal(size=20)
    above = below * random.uniform(0.2, 0.4, 20)
    counts = resampled_counts(20, 20_000)
    ours = bounds_of(1 - above.sum() / below.sum(), 1 - (counts @ above) / (counts @ below), 20)
    tail = stats.norm.cdf(-stats.t.ppf(0.975, 19) * math.sqrt(20 / 19))

    def skill(above: np.ndarray, below: np.ndarray, axis: int) -> np.ndarray:
        return 1 - above.mean(axis) / below.mean(axis)

    theirs = stats.bootstrap(
        (above, below), skill, paired=True, n_resamples=20_000, confidence_level=1 - 2 * tail, method="percentile"
    ).confidence_interval
    assert ours is not None
    width = theirs.high - theirs.low
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.04 * width)
    # what is common to both cancels: drawn apart they would be several times as wide
    assert width < 0.2


@pytest.mark.parametrize(("episodes", "least"), [(6, 0.89), (24, 0.91)])
def test_intervals_hold_the_true_mean_about_as_often_as_they_say(episodes: int, least: float) -> None:
    random = np.random.default_rng(1)
    held, repeats = 0, 400
    for _ in range(repeats):
        interval = mean_interval(random.normal(3.0, 2.0, episodes), rounds=500)
        held += interval.low <= 3.0 <= interval.high
    assert least <= held / repeats <= 0.985


def test_clips_of_an_episode_are_drawn_together() -> None:
    # four episodes of eight equal clips each tell as much as four numbers, not as 32
    values = np.array([0.0, 1.0, 5.0, 2.0])
    episodes = np.repeat([7, 3, 9, 5], 8)
    groups = pooled(episodes)
    counts = resampled_counts(4) @ groups
    clips = np.repeat(values, 8)
    found = bounds_of(clips.mean(), counts @ clips / counts.sum(1), 4)
    alone = mean_interval(values)
    assert found is not None
    # the same episodes in another order, so that the draws differ
    assert found == pytest.approx((alone.low, alone.high), abs=0.35)
    assert found.high - found.low > 2 * (
        np.percentile(np.random.default_rng(0).choice(clips, (2000, 32)).mean(1), 97.5) - 2
    )


def test_a_bias_of_resampling_is_taken_off() -> None:
    # each episode has a code of its own: entropy falls where one is missing, as it does in most resampled sets
    counts = resampled_counts(12, 4000)
    shares = counts / counts.sum(1, keepdims=True)
    drawn = np.exp(stats.entropy(shares, axis=1))
    assert np.percentile(drawn, 97.5) < 12
    found = bounds_of(12.0, drawn, 12)
    assert found is not None
    assert found.low < 12 < found.high


def test_one_episode_has_no_interval() -> None:
    interval = mean_interval(np.array([2.0]))
    assert interval.mean == 2 and math.isnan(interval.low) and math.isnan(interval.high)
    assert interval.bounds is None
    assert bounds_of(math.nan, np.ones(10), 5) is None
    assert bounds_of(1.0, np.full(10, math.nan), 5) is None


def test_seeds_are_drawn_as_well() -> None:
    # every episode alike: all that varies is the seed
    values = np.array([[0.0] * 6, [1.0] * 6, [2.0] * 6])
    drawn = over_seeds(lambda seed, counts: counts @ values[seed, :, None] / 6, 3, 6, 4000)[:, 0]
    assert drawn.std() == pytest.approx(math.sqrt(2 / 3 / 3), rel=0.05)


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


def test_means_of_what_is_known() -> None:
    found = known_mean(np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan]]))
    assert found[0] == 2.0 and np.isnan(found[1])
