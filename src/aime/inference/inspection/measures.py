"""The measures of an inspection: reconstruction, likelihood, skill at a few horizons, and dB of dreamt frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from aime.inference import metrics
from aime.primitives.intervals import Interval, interval_over

Kind = Literal["reconstruction", "body", "dream", "body dream", "nats", "elbo", "skill"]

HORIZONS = (1, 5, 15, 45)
"""Frames ahead at which skill is measured, as far as the clips reach."""

DREAM = 15
"""Frames ahead at which the dB of dreamt frames are measured; the last of the horizons below it in shorter clips."""

DECIBELS: frozenset[Kind] = frozenset({"reconstruction", "body", "dream", "body dream"})
NATS: frozenset[Kind] = frozenset({"nats", "elbo"})
"""Of these, less is better."""


@dataclass(frozen=True)
class Measure:
    """One figure that an intervention may change.

    Attributes:
        kind: how it is computed.
        horizon: frames ahead, of skill and of dreamt frames.
    """

    kind: Kind
    horizon: int = 0

    @property
    def name(self) -> str:
        """Such as "skill at 5"."""
        return f"{self.kind} at {self.horizon}" if self.horizon else self.kind

    @property
    def notable(self) -> float:
        """The smallest loss with which a part carries weight: in dB, in nats a frame, and of skill."""
        return 0.3 if self.kind in DECIBELS else 1.0 if self.kind in NATS else 0.02


def measures_up_to(horizon: int, masked: bool = False) -> tuple[Measure, ...]:
    """All measures of clips of which so many frames are predicted.

    Args:
        horizon: frames, 1 or more.
        masked: whether the body's pixels are known, which the measures of the body need.
    """
    horizons = horizons_up_to(horizon)
    dream = dream_horizon(horizons)
    return (
        Measure("reconstruction"),
        *([Measure("body")] if masked else []),
        Measure("dream", dream),
        *([Measure("body dream", dream)] if masked else []),
        Measure("nats"),
        Measure("elbo"),
        *(Measure("skill", each) for each in horizons),
    )


def horizons_up_to(horizon: int) -> list[int]:
    """Those of `HORIZONS` that are at most `horizon`."""
    return [each for each in HORIZONS if each <= horizon]


def dream_horizon(horizons: Sequence[int]) -> int:
    """The last of some horizons that is at most `DREAM`."""
    return max(each for each in horizons if each <= DREAM)


class Scores(NamedTuple):
    """The scores of B clips by the kind of their measure; None where it was not computed.

    NaN where a clip has none: its frames show no body.
    """

    reconstruction: Float[Tensor, " B"] | None = None
    """PSNR in dB, averaged over all frames."""
    body: Float[Tensor, " B"] | None = None
    """PSNR in dB of the body's pixels, averaged over the frames that show a body."""
    dream: Float[Tensor, " B"] | None = None
    """PSNR in dB of the mean of the sampled futures, at `dream_horizon`."""
    body_dream: Float[Tensor, " B"] | None = None
    """The same over the pixels of the true body."""
    nats: Float[Tensor, " B"] | None = None
    """-log p(z_t | past) of a sample of the unchanged posterior, averaged over the frames after the context."""
    elbo: Float[Tensor, " B"] | None = None
    """Negative ELBO in nats at a sample of the posterior, averaged over the same frames."""
    skill: Float[Tensor, "B H"] | None = None
    """Mean squared error of the mean of the sampled futures, at each of the horizons, from which skill is computed."""

    def of(self, kind: Kind) -> Float[Tensor, "B *H"] | None:
        """The scores of one kind."""
        found: Tensor | None = getattr(self, kind.replace(" ", "_"))
        return found


class Baselines(NamedTuple):
    """Mean squared errors of the two baselines of skill, at each of the horizons."""

    persistence: Float[Tensor, "B H"]
    mean_image: Float[Tensor, "B H"]


class Figures:
    """The measures of B clips, for any numbers of times that each clip is counted."""

    def __init__(self, scores: Scores, baselines: Baselines, horizons: Sequence[int]) -> None:
        self.scores, self.baselines, self.horizons = scores, baselines, list(horizons)

    def has(self, measure: Measure) -> bool:
        """Whether the measure was computed."""
        return self.scores.of(measure.kind) is not None

    def of(self, measure: Measure, counts: Float64[np.ndarray, "R B"]) -> Float64[np.ndarray, " R"]:
        """The measure in its own unit, for each of R sets of counts."""
        if measure.kind == "skill":
            column = self.horizons.index(measure.horizon)
            errors = (self.scores.skill, *self.baselines)
            return metrics.skill(*(torch.from_numpy(_mean(each, counts, column)) for each in errors)).numpy()
        return _mean(self.scores.of(measure.kind), counts)


def figure(figures: Figures, measure: Measure, episodes: Sequence[int] | np.ndarray) -> Interval:
    """A measure with its 95 % interval over the episodes of the B clips."""
    return interval_over(lambda counts: figures.of(measure, counts), episodes)


def loss(intact: Figures, changed: Figures, measure: Measure, episodes: Sequence[int] | np.ndarray) -> Interval:
    """The loss by a change, with its 95 % interval over episodes: above 0 the model is worse with the change.

    The difference is paired: it is taken within each resampled set of clips.
    """
    sign = -1.0 if measure.kind in NATS else 1.0
    return interval_over(lambda counts: sign * (intact.of(measure, counts) - changed.of(measure, counts)), episodes)


def _mean(
    values: Float[Tensor, "B *H"] | None, counts: Float64[np.ndarray, "R B"], column: int | None = None
) -> Float64[np.ndarray, " R"]:
    """The mean over the clips whose value is known; NaN where none is."""
    assert values is not None, "only what was computed is asked for"
    each = (values if column is None else values[:, column]).double().numpy()
    known = np.isfinite(each)
    number = counts[:, known].sum(axis=1)
    total = counts[:, known] @ each[known]
    return np.where(number > 0, total / np.where(number > 0, number, 1.0), np.nan)
