"""Which recurrence the belief follows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DynamicsConfig:
    """Kind of the recurrence."""

    kind: str = "lstm"
    """Recurrence of the belief: `lstm`, or `mingru`, a linear recurrence that trains as a parallel scan."""
