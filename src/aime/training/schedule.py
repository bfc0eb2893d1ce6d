"""How far a run is, in steps or in minutes, and the learning rate that goes with it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """The length of a run: steps, or minutes of wall time (one of them is None)."""

    steps: int | None
    minutes: float | None

    def share(self, step: int, seconds: float) -> float:
        """The share of the run that is done, in [0, 1], after `step` steps and `seconds` of training."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        assert self.minutes is not None
        return min(1.0, seconds / (60 * self.minutes))

    def without(self, share: float) -> Budget:
        """What is left of it when a share of its minutes, in [0, 1), is set aside; steps stay."""
        return Budget(self.steps, None if self.minutes is None else self.minutes * (1 - share))

    def seconds_left(self, seconds: float) -> float:
        """Of its minutes, after so many seconds; endless where steps are counted."""
        return math.inf if self.minutes is None else max(0.0, 60 * self.minutes - seconds)


def learning_rate_factor(step: int, share: float, warmup: int, floor: float = 0.1) -> float:
    """Linear warm-up over `warmup` steps, then half a cosine from 1 down to `floor` over the run.

    Reference: Loshchilov & Hutter 2017 (SGDR), arXiv 1608.03983, equation 5, without restarts.
    """
    rise = min(1.0, (step + 1) / max(1, warmup))
    return rise * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share)))
