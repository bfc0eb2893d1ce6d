"""The measures of an inspection: reconstruction, nats of the prior, and skill at a few horizons."""

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

Kind = Literal["reconstruction", "nats", "skill"]

HORIZONS = (1, 5, 15, 45)
"""Frames ahead at which skill is measured, as far as the clips reach."""


@dataclass(frozen=True)
class Measure:
    """One figure that an intervention may change.

    Attributes:
        kind: how it is computed.
        horizon: frames ahead, of skill.
    """

    kind: Kind
    horizon: int = 0

    @property
    def name(self) -> str:
        """Such as "skill at 5"."""
        return f"skill at {self.horizon}" if self.kind == "skill" else self.kind

    @property
    def notable(self) -> float:
        """The smallest loss with which a part carries weight: in dB, in nats a frame, and of skill."""
        return {"reconstruction": 0.3, "nats": 1.0, "skill": 0.02}[self.kind]


def measures_up_to(horizon: int) -> tuple[Measure, ...]:
    """All measures of clips of which so many frames are predicted."""
    return Measure("reconstruction"), Measure("nats"), *(Measure("skill", each) for each in horizons_up_to(horizon))


def horizons_up_to(horizon: int) -> list[int]:
    """Those of `HORIZONS` that are at most `horizon`."""
    return [each for each in HORIZONS if each <= horizon]


class Scores(NamedTuple):
    """The scores of B clips by the kind of their measure; None where it was not computed."""

    reconstruction: Float[Tensor, " B"] | None
    """PSNR in dB, averaged over all frames."""
    nats: Float[Tensor, " B"] | None
    """-log p(z_t | past) of a sample of the unchanged posterior, averaged over the frames after the context."""
    skill: Float[Tensor, "B H"] | None
    """Mean squared error of the mean of the sampled futures, at each of the horizons, from which skill is computed."""


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
        return getattr(self.scores, measure.kind) is not None

    def of(self, measure: Measure, counts: Float64[np.ndarray, "R B"]) -> Float64[np.ndarray, " R"]:
        """The measure in its own unit, for each of R sets of counts."""
        if measure.kind == "skill":
            column = self.horizons.index(measure.horizon)
            errors = (self.scores.skill, *self.baselines)
            return metrics.skill(*(torch.from_numpy(_mean(each, counts, column)) for each in errors)).numpy()
        return _mean(getattr(self.scores, measure.kind), counts)


def figure(figures: Figures, measure: Measure, episodes: Sequence[int] | np.ndarray) -> Interval:
    """A measure with its 95 % interval over the episodes of the B clips."""
    return interval_over(lambda counts: figures.of(measure, counts), episodes)


def loss(intact: Figures, changed: Figures, measure: Measure, episodes: Sequence[int] | np.ndarray) -> Interval:
    """The loss by a change, with its 95 % interval over episodes: above 0 the model is worse with the change.

    The difference is paired: it is taken within each resampled set of clips.
    """
    sign = -1.0 if measure.kind == "nats" else 1.0
    return interval_over(lambda counts: sign * (intact.of(measure, counts) - changed.of(measure, counts)), episodes)


def _mean(
    values: Float[Tensor, "B *H"] | None, counts: Float64[np.ndarray, "R B"], column: int | None = None
) -> Float64[np.ndarray, " R"]:
    assert values is not None, "only what was computed is asked for"
    each = (values if column is None else values[:, column]).double().numpy()
    return counts @ each / counts.sum(axis=1)
