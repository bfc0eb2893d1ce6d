"""Losses, their intervals and the verdicts on them, against numbers made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from aime.inference.inspection.measures import (
    Baselines,
    Figures,
    Measure,
    Scores,
    figure,
    loss,
    measures_up_to,
)
from aime.inference.inspection.verdict import Verdict, judge, strongest
from aime.primitives.intervals import Interval

EPISODES = [0, 0, 1, 2]


def figures(psnr: list[float], nats: list[float], mse: list[list[float]]) -> Figures:
    baselines = Baselines(torch.tensor([[4.0, 8.0]]).expand(4, 2), torch.tensor([[2.0, 16.0]]).expand(4, 2))
    return Figures(
        Scores(
            reconstruction=torch.tensor(psnr),
            dream=torch.tensor(psnr),
            nats=torch.tensor(nats),
            elbo=torch.tensor(nats),
            skill=torch.tensor(mse),
        ),
        baselines,
        (1, 5),
    )


INTACT = figures([30.0, 31, 32, 33], [5.0, 6, 7, 8], [[1.0, 2], [1, 2], [1, 2], [1, 2]])
CHANGED = figures([29.0, 29, 29, 29], [6.0, 6, 6, 6], [[2.0, 4], [2, 4], [0, 4], [2, 4]])


def test_a_loss_is_above_zero_where_the_model_is_worse() -> None:
    found = {each.name: loss(INTACT, CHANGED, each, EPISODES).mean for each in measures_up_to(5)}
    assert found == {
        "reconstruction": pytest.approx((1 + 2 + 3 + 4) / 4),
        "dream at 5": pytest.approx((1 + 2 + 3 + 4) / 4),
        "nats": pytest.approx((1 + 0 - 1 - 2) / 4),
        "elbo": pytest.approx((1 + 0 - 1 - 2) / 4),
        # the better baseline is 2 one frame ahead and 8 five ahead
        "skill at 1": pytest.approx((1 - 1 / 2) - (1 - 1.5 / 2)),
        "skill at 5": pytest.approx((1 - 2 / 8) - (1 - 4 / 8)),
    }


def test_the_interval_is_that_of_paired_episodes() -> None:
    found = loss(INTACT, CHANGED, Measure("reconstruction"), EPISODES)
    # every resampled set of three episodes: the first has clips that lose 1 and 2, the others one of 3 and one of 4
    sums, sizes = np.array([3.0, 3, 4]), np.array([2, 1, 1])
    draws = np.random.default_rng(0).integers(0, 3, (200_000, 3))
    means = sums[draws].sum(1) / sizes[draws].sum(1)
    assert found.low < np.quantile(means, 0.025) + 0.05
    assert found.high > np.quantile(means, 0.975) - 0.05
    assert means.min() - 0.3 <= found.low <= found.high <= means.max() + 0.3
    # what all clips lose alike has no spread, however different the clips are
    shifted = figures([29.0, 30, 31, 32], [5.0, 6, 7, 8], [[1.0, 2]] * 4)
    even = loss(INTACT, shifted, Measure("reconstruction"), EPISODES)
    assert_allclose([even.mean, even.low, even.high], 1.0)


def test_which_measures_were_computed() -> None:
    partial = Figures(INTACT.scores._replace(reconstruction=None), INTACT.baselines, (1, 5))
    assert [partial.has(each) for each in measures_up_to(5)] == [False, True, True, True, True, True]
    assert [each.name for each in measures_up_to(45, masked=True)] == [
        "reconstruction",
        "body",
        "dream at 15",
        "body dream at 15",
        "nats",
        "elbo",
        "skill at 1",
        "skill at 5",
        "skill at 15",
        "skill at 45",
    ]


def test_clips_without_a_body_do_not_count() -> None:
    bare = [INTACT.scores._replace(body=torch.tensor([math.nan, 20, 22, each])) for each in (27.0, 24.0)]
    before, after = (Figures(each, INTACT.baselines, (1, 5)) for each in bare)
    assert figure(before, Measure("body"), EPISODES).mean == pytest.approx(23)
    assert loss(before, after, Measure("body"), EPISODES).mean == pytest.approx(1)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.3, 0.9, "carries weight"),
        (0.29, 5.0, "weak"),
        (0.0031, 0.1, "weak"),
        (1e-6, 0.1, "has no effect"),
        (-0.1, -1e-6, "has no effect"),
        (-0.4, -0.1, "weak"),
        (0.0, 0.4, "has no effect"),
        (-0.1, 0.0, "has no effect"),
        (-3.0, 3.0, "has no effect"),
        (math.nan, math.nan, "undetermined"),
    ],
)
def test_verdicts(low: float, high: float, verdict: Verdict) -> None:
    assert judge(Interval(0.5, low, high), Measure("reconstruction").notable) == verdict


def test_each_measure_has_its_own_threshold() -> None:
    narrow = Interval(0.5, 0.4, 0.6)
    found = [judge(narrow, each.notable) for each in measures_up_to(1, masked=True)]
    assert found == ["carries weight"] * 4 + ["weak"] * 2 + ["carries weight"]
    assert strongest(["has no effect", "weak"]) == "weak"
    assert strongest(["undetermined", "has no effect"]) == "has no effect"
    assert strongest([]) == "undetermined"
