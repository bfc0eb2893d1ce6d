"""Intervals of R², from sums of which it is known."""

from __future__ import annotations

import numpy as np
import pytest

from aime.inference.probe import ProbeScores, r_squared_intervals


def scores(error: float, episodes: int = 6) -> ProbeScores:
    """Two columns of variance 1 and one that stands still; the second is predicted with that squared error."""
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
