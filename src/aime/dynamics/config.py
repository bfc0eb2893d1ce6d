"""Which recurrence the belief follows."""

from __future__ import annotations

from dataclasses import dataclass

from aime.dynamics.recurrences import RECURRENCES
from aime.errors import AimeError


@dataclass(frozen=True)
class DynamicsConfig:
    """Kind of the recurrence.

    Raises:
        AimeError: if there is none of this name.
    """

    kind: str = "lstm"
    """Recurrence of the belief: lstm, or mingru, a linear recurrence that trains as a parallel scan."""

    def __post_init__(self) -> None:
        if self.kind not in RECURRENCES:
            raise AimeError(f"dynamics.kind is {self.kind!r}; expected one of {', '.join(RECURRENCES)}")
