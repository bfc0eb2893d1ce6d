"""Sizes of the control heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from aime.errors import expect_sizes


@dataclass(frozen=True)
class ControlConfig:
    """Kind and sizes of the control pillar.

    Raises:
        AimeError: if `hidden` is below 1.
    """

    kind: Literal["heads", "none"] = "heads"
    """`none` leaves out reward, continuation and action schema."""
    hidden: int = 256
    """Width of each head's hidden layer."""
    bins: ClassVar[int] = 101
    """Bins of the reward's two-hot distribution: an odd number, so that one bin is 0."""
    components: ClassVar[int] = 5
    """Components of the mixture that predicts an action."""
    min_scale: ClassVar[float] = 0.05
    """Smallest standard deviation of a predicted action, whose range is -1 to 1."""
    max_scale: ClassVar[float] = 2.0

    def __post_init__(self) -> None:
        expect_sizes(self, "hidden", of="control")
