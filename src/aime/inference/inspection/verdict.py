"""What an interval says about a part of the model, in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from aime.primitives.intervals import Interval

Verdict = Literal["carries weight", "weak", "has no effect", "cannot tell"]
"""From the strongest; the last one where there is no interval, as of one episode."""


def judge(loss: Interval, notable: float) -> Verdict:
    """Say what a loss means.

    Args:
        loss: what the model loses by a change, above 0 where it is worse.
        notable: the least loss that counts as weight.

    Returns:
        "carries weight" where the whole interval is at or above `notable`, "weak" where it excludes 0 on either side,
        "has no effect" where it holds 0.
    """
    bounds = loss.bounds
    if bounds is None:
        return "cannot tell"
    if bounds.low >= notable:
        return "carries weight"
    return "weak" if bounds.low > 0 or bounds.high < 0 else "has no effect"


def strongest(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a whole from those on its measures: the strongest of them; "cannot tell" of none."""
    return min(verdicts, key=get_args(Verdict).index, default="cannot tell")
