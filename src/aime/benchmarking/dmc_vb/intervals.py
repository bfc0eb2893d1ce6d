"""Intervals of what was found with several seeds on the same episodes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from aime.agents.playing import Interval
from aime.inference.probe import ProbeScores

ROUNDS = 10_000


def resampled(
    figures: Callable[[int, Float[np.ndarray, "R E"]], Float[np.ndarray, "R M"]],
    seeds: int,
    episodes: int,
    rounds: int = ROUNDS,
) -> Float[np.ndarray, "R M"]:
    """M figures for each of R samples of the seeds and of the episodes, both drawn with replacement.

    The same episodes are drawn for all seeds, because they are the same ones. With one seed this is the usual bootstrap
    over episodes.

    Args:
        figures: given a seed's number and how often each of E episodes is counted in each of R samples, its figures;
            NaN where there is none.
        seeds: S, 1 or more.
        episodes: E, 1 or more.
        rounds: R.

    Reference: Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2).
    """
    random = np.random.default_rng(0)
    counts = random.multinomial(episodes, np.full(episodes, 1 / episodes), size=rounds).astype(np.float64)
    shares = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=rounds) / seeds
    parts = []
    for seed in range(seeds):
        share = shares[:, seed, None]
        parts.append(np.where(share > 0, share * figures(seed, counts), 0.0))
    return np.sum(parts, axis=0)


def mean_interval(values: Float[np.ndarray, "S E"]) -> Interval:
    """The mean over S seeds and E episodes, with its 95 % interval."""
    drawn = resampled(lambda seed, counts: counts @ values[seed, :, None] / values.shape[1], *values.shape)
    return _interval(float(values.mean()), drawn[:, 0])


def r_squared_intervals(scores: Sequence[ProbeScores], groups: Sequence[Sequence[int]]) -> list[Interval]:
    """R² of groups of columns, the mean over the columns that vary and over seeds, with 95 % intervals.

    Args:
        scores: of each seed, on the same episodes.
        groups: numbers of columns; one or more groups.
    """

    def figures(seed: int, counts: Float[np.ndarray, "R E"] | None) -> Float[np.ndarray, "R M"]:
        found = scores[seed].r_squared(counts)
        return np.stack([known_mean(found[:, list(group)]) for group in groups], axis=1)

    drawn = resampled(figures, len(scores), len(scores[0].frames))
    points = np.mean([figures(seed, None)[0] for seed in range(len(scores))], axis=0)
    return [_interval(float(point), drawn[:, number]) for number, point in enumerate(points)]


def known_mean(values: Float[np.ndarray, "R C"]) -> Float[np.ndarray, " R"]:
    """The mean of each row over what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    number = known.sum(axis=1)
    return np.where(number > 0, np.where(known, values, 0.0).sum(axis=1) / np.maximum(number, 1), np.nan)


def _interval(point: float, drawn: Float[np.ndarray, " R"]) -> Interval:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of figures that are NaN in every sample
        low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Interval(point, float(low), float(high))
