"""95 % intervals by the bootstrap: how far a figure would move with other episodes of the same kind.

Clips of one episode resemble each other, so that whole episodes are drawn with replacement, each with all of its clips
(the cluster bootstrap; Davison & Hinkley 1997, "Bootstrap methods and their application", section 3.8). The interval
lies between percentiles of the resampled figures (Efron 1979), at levels that are widened for few episodes as the
t-distribution is (Hesterberg 2015, "What teachers should know about the bootstrap", section 5.3: plain percentiles of
8 episodes hold the true value 86 times in 100, these 93). Where resampling itself moves a figure by more than a quarter
of its standard error, as it does entropies, that bias is taken off (Efron & Tibshirani 1993, "An introduction to the
bootstrap", section 10.3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

ROUNDS = 2000
"""Resampled sets of episodes."""

LEVEL = 0.95

NOTABLE_BIAS = 0.25
"""In standard errors; a smaller bias than this does less harm than taking it off."""


class Bounds(NamedTuple):
    """The ends of a 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval.

    Attributes:
        mean: of the sample.
        low: NaN where there is one episode, of which no interval can be told.
        high: likewise.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def around(cls, mean: float, bounds: Bounds | None) -> Interval:
        """A figure and its bounds, of which there may be none."""
        return cls(mean, math.nan, math.nan) if bounds is None else cls(mean, *bounds)

    @property
    def bounds(self) -> Bounds | None:
        """The ends; None where there is one episode."""
        return None if math.isnan(self.low) else Bounds(self.low, self.high)


def resampled_counts(units: int, rounds: int = ROUNDS, seed: int = 0) -> Float64[np.ndarray, "R E"]:
    """How often each of E units is drawn in each of R samples of E with replacement; always the same ones.

    Two models that are judged on the same episodes are thereby resampled alike, so that differences are paired.

    Args:
        units: E, 1 or more.
        rounds: R.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    return random.multinomial(units, np.full(units, 1 / units), size=rounds).astype(np.float64)


def bounds_of(point: float, drawn: Float64[np.ndarray, " R"], units: int) -> Bounds | None:
    """The 95 % interval of a figure; None of a single unit, or where the figure is not defined.

    Args:
        point: the figure over all units.
        drawn: the same of R resampled sets; NaN where it is not defined there.
        units: E, which were drawn from.
    """
    known = drawn[np.isfinite(drawn)]
    if units < 2 or not math.isfinite(point) or not known.size:
        return None
    tail = 100 * _tail(units)
    low, high = np.percentile(known, [tail, 100 - tail])
    bias = known.mean() - point
    if abs(bias) > NOTABLE_BIAS * known.std():
        low, high = low - bias, high - bias
    return Bounds(float(low), float(high))


def mean_interval(values: Float64[np.ndarray, "*S E"], rounds: int = ROUNDS, seed: int = 0) -> Interval:
    """The mean of a figure of E episodes, or of S seeds on the same E episodes, with its 95 % interval.

    Args:
        values: one number an episode, or one each for every seed.
        rounds: resampled sets.
        seed: of the resampling.
    """
    values = np.atleast_2d(np.asarray(values, np.float64))
    seeds, episodes = values.shape
    drawn = over_seeds(lambda each, counts: counts @ values[each, :, None] / episodes, seeds, episodes, rounds, seed)
    return Interval.around(float(values.mean()), bounds_of(float(values.mean()), drawn[:, 0], max(episodes, seeds)))


def interval_over(
    figure: Callable[[Float64[np.ndarray, "R B"]], Float64[np.ndarray, " R"]], episodes: Sequence[int] | np.ndarray
) -> Interval:
    """A figure of B clips with its 95 % interval over their episodes.

    Args:
        figure: of R sets, given how often each clip is counted in each.
        episodes: B numbers; clips with the same one are of the same episode.
    """
    groups = pooled(episodes)
    drawn = figure(resampled_counts(len(groups)) @ groups)
    point = float(figure(np.ones((1, groups.shape[1])))[0])
    return Interval.around(point, bounds_of(point, drawn, len(groups)))


def over_seeds(
    figures: Callable[[int, Float64[np.ndarray, "R E"]], Float64[np.ndarray, "R M"]],
    seeds: int,
    episodes: int,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Float64[np.ndarray, "R M"]:
    """M figures for each of R samples of the seeds and of the episodes, both drawn with replacement.

    The same episodes are drawn for all seeds, because they are the same ones. With one seed this is the bootstrap over
    episodes.

    Args:
        figures: given a seed's number and how often each of E episodes is counted in each of R samples, its figures;
            NaN where there is none.
        seeds: S, 1 or more.
        episodes: E, 1 or more.
        rounds: R.
        seed: of the resampling.

    Reference: Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2).
    """
    counts = resampled_counts(episodes, rounds, seed)
    shares = resampled_counts(seeds, rounds, seed + 1) / seeds
    parts = []
    for each in range(seeds):
        share = shares[:, each, None]
        parts.append(np.where(share > 0, share * figures(each, counts), 0.0))
    return np.sum(parts, axis=0)


def known_mean(values: Float64[np.ndarray, "R C"]) -> Float64[np.ndarray, " R"]:
    """The mean of each row over what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    number = known.sum(axis=1)
    return np.where(number > 0, np.where(known, values, 0.0).sum(axis=1) / np.maximum(number, 1), np.nan)


def pooled(groups: Sequence[int] | np.ndarray) -> Float64[np.ndarray, "E B"]:
    """A matrix that sums the rows of B clips by their E episodes, whose numbers are given."""
    _, place = np.unique(np.asarray(groups), return_inverse=True)
    return np.eye(int(place.max()) + 1)[:, place]


@cache
def _tail(units: int) -> float:
    """The share of resampled figures below the interval: as far out as the t-distribution of E - 1 degrees is."""
    # t = √ν tan θ has the t-distribution if the density of θ is proportional to cos^(ν-1) θ
    angles = np.linspace(-math.pi / 2, math.pi / 2, 200_001)
    density = np.cos(angles).clip(0) ** (units - 2)
    below = np.cumsum(density) - density / 2
    angle = np.interp((1 + LEVEL) / 2, below / density.sum(), angles)
    quantile = math.sqrt(units - 1) * math.tan(angle)
    return NormalDist().cdf(-quantile * math.sqrt(units / (units - 1)))
