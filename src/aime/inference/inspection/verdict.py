"""The verdict on a part of the model, from the interval of what the model loses without it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from aime.primitives.intervals import Interval

Verdict = Literal["carries weight", "weak", "has no effect", "undetermined"]
"""From the strongest; "undetermined" where there is no interval, as with one episode."""


NEGLIGIBLE = 0.01
"""Share of a notable loss: smaller ones are no effect, since rounding alone can move an interval off 0."""


def judge(loss: Interval, notable: float) -> Verdict:
    """The verdict on one loss.

    Args:
        loss: what the model loses by a change, above 0 where it is worse.
        notable: the least loss that counts as weight.

    Returns:
        "carries weight" where the whole interval is at or above `notable`, "weak" where it is beyond `NEGLIGIBLE` of
        that on either side of 0, "undetermined" where there is no interval, else "has no effect".
    """
    bounds = loss.bounds
    if bounds is None:
        return "undetermined"
    if bounds.low >= notable:
        return "carries weight"
    negligible = NEGLIGIBLE * notable
    return "weak" if bounds.low > negligible or bounds.high < -negligible else "has no effect"


def strongest(verdicts: Iterable[Verdict]) -> Verdict:
    """The strongest of several verdicts; "undetermined" if there are none."""
    return min(verdicts, key=get_args(Verdict).index, default="undetermined")
