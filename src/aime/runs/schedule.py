"""Progress and budget of a run and its phases, and the learning-rate schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

PhaseName = Literal["joint", "dynamics_finetuning"]
Stage = Literal["joint", "dynamics_finetuning", "complete"]
JOINT: Final = "joint"
DYNAMICS_FINETUNING: Final = "dynamics_finetuning"
COMPLETE: Final = "complete"


class Progress(NamedTuple):
    """The progress of a run."""

    step: int = 0
    """Optimizer steps of joint learning."""
    frames: int = 0
    """Frames in these steps."""
    seconds: float = 0.0
    """Wall time of training, over all phases and sessions."""
    phase: Stage = JOINT
    """The current phase; `complete` after the last one."""
    phase_step: int = 0
    """Optimizer steps of dynamics fine-tuning."""
    phase_start_seconds: float = 0.0
    """`seconds` at the first step of dynamics fine-tuning."""

    def within(self, phase: PhaseName) -> tuple[int, float]:
        """Steps and seconds spent in a phase."""
        return (
            (self.step, self.seconds) if phase == JOINT else (self.phase_step, self.seconds - self.phase_start_seconds)
        )

    def after_step(self, phase: PhaseName, frames: int, seconds: float) -> Progress:
        """The progress after one more step of a phase on `frames` frames, at `seconds` of training."""
        if phase == JOINT:
            return Progress(self.step + 1, self.frames + frames, seconds)
        return self._replace(seconds=seconds, phase=phase, phase_step=self.phase_step + 1)


@dataclass(frozen=True)
class Budget:
    """The length of a run or a phase: steps, minutes of wall time, or whichever of both ends first."""

    steps: int | None
    minutes: float | None

    def share(self, step: int, seconds: float) -> float:
        """The completed fraction, in [0, 1], after `step` steps and `seconds`."""
        of_steps = 0.0 if self.steps is None else step / self.steps
        if self.minutes is None:
            return min(1.0, of_steps)
        return min(1.0, max(of_steps, seconds / (60 * self.minutes))) if self.minutes > 0 else 1.0

    def without(self, share: float) -> Budget:
        """The budget with its minutes reduced by `share` in [0, 1); steps are unchanged."""
        return Budget(self.steps, None if self.minutes is None else self.minutes * (1 - share))

    def seconds_left(self, seconds: float) -> float:
        """Remaining seconds after `seconds`; infinite if the budget has no minutes."""
        return math.inf if self.minutes is None else max(0.0, 60 * self.minutes - seconds)


def learning_rate_factor(step: int, share: float, warmup: int, floor: float = 0.1) -> float:
    """Linear warm-up over `warmup` steps, then half a cosine from 1 down to `floor` over the run.

    Reference: Loshchilov & Hutter 2017 (SGDR), arXiv 1608.03983, equation 5, without restarts.
    """
    rise = min(1.0, (step + 1) / max(1, warmup))
    return rise * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share)))
