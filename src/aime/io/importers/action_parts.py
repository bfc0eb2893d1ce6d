"""The parts of an action: continuous, discrete and boolean.

A discrete action with n choices becomes n numbers, 1 for the choice taken and -1 for the others. A boolean becomes 1 or
-1. Continuous actions do not change.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float

from aime.errors import AimeError
from aime.io.importers.interface import BadEpisode

MAX_CHOICES = 4096
"""Maximum number of choices of one part."""

Range = tuple[tuple[float, ...], tuple[float, ...]]


class ActionPart(Protocol):
    """A part of a source's action, and its conversion."""

    @property
    def size(self) -> int:
        """Number of values in the source."""
        ...

    @property
    def width(self) -> int:
        """Number of values in the data set."""
        ...

    @property
    def bounds(self) -> Range:
        """Minimum and maximum of each value, `[width]`; NaN where not declared."""
        ...

    @property
    def is_discrete(self) -> bool:
        """Whether the values are always -1 or 1."""
        ...

    def encode(self, values: np.ndarray, where: str) -> Float[np.ndarray, "L W"]:
        """Convert `[L, size]` of the source to `[L, width]`.

        Raises:
            BadEpisode: if a value is not a valid choice; the message begins with `where`.
        """
        ...


@dataclass(frozen=True)
class Quantities:
    """Continuous values.

    Attributes:
        low: declared minimum of each value, NaN where not declared.
        high: declared maximum.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    is_discrete = False

    @classmethod
    def unbounded(cls, size: int) -> Quantities:
        """`size` values without a declared range."""
        return cls((math.nan,) * size, (math.nan,) * size)

    @property
    def size(self) -> int:
        """Number of values in the source."""
        return len(self.low)

    @property
    def width(self) -> int:
        """See `ActionPart`."""
        return self.size

    @property
    def bounds(self) -> Range:
        """The declared range."""
        return self.low, self.high

    def encode(self, values: np.ndarray, where: str) -> Float[np.ndarray, "L W"]:
        """The values, unchanged."""
        return values.astype(np.float64)


@dataclass(frozen=True)
class Choices:
    """Discrete values.

    Attributes:
        starts: the first choice of each value.
        counts: the number of choices of each value.
    """

    starts: tuple[int, ...]
    counts: tuple[int, ...]

    is_discrete = True

    def __post_init__(self) -> None:
        """Check the number of choices.

        Raises:
            AimeError: if there are too few or too many.
        """
        if min(self.counts, default=0) < 1 or sum(self.counts) > MAX_CHOICES or len(self.starts) != len(self.counts):
            shown = ", ".join(map(str, self.counts[:8]))
            raise AimeError(
                f"an action has choices of [{shown}], expected 1 or more each and {MAX_CHOICES} at most in all; store "
                "continuous actions as floats, or import with --no-actions"
            )

    @property
    def size(self) -> int:
        """Number of values in the source."""
        return len(self.counts)

    @property
    def width(self) -> int:
        """One number per choice of each value."""
        return sum(self.counts)

    @property
    def bounds(self) -> Range:
        """-1 and 1."""
        return (-1.0,) * self.width, (1.0,) * self.width

    def encode(self, values: np.ndarray, where: str) -> Float[np.ndarray, "L W"]:
        """1 for the choice taken, -1 for the others."""
        _check_whole(values, where)
        found = [
            _one_of(values[:, index], start, count, where)
            for index, (start, count) in enumerate(zip(self.starts, self.counts, strict=True))
        ]
        return np.concatenate(found, axis=1)


@dataclass(frozen=True)
class Switches:
    """Boolean values.

    Attributes:
        size: number of values.
    """

    size: int

    is_discrete = True

    @property
    def width(self) -> int:
        """See `ActionPart`."""
        return self.size

    @property
    def bounds(self) -> Range:
        """-1 and 1."""
        return (-1.0,) * self.size, (1.0,) * self.size

    def encode(self, values: np.ndarray, where: str) -> Float[np.ndarray, "L W"]:
        """-1 for 0, 1 for 1."""
        values = values.astype(np.float64)
        wrong = values[(values != 0) & (values != 1)]
        if len(wrong):
            raise BadEpisode(f"{where} is {wrong[0]:g}, expected 0 or 1; drop the episode")
        return 2 * values - 1


def _check_whole(values: np.ndarray, where: str) -> None:
    if values.dtype.kind == "f" and not (values == np.floor(values)).all():
        odd = values[values != np.floor(values)][0]
        raise BadEpisode(f"{where} is {odd:g}, expected a whole number, because it is a choice; drop the episode")


def _one_of(chosen: np.ndarray, start: int, count: int, where: str) -> Float[np.ndarray, "L W"]:
    outside = [value for value in np.unique(chosen).tolist() if not start <= value < start + count]
    if outside:
        last = start + count - 1
        raise BadEpisode(f"{where} is {outside[0]}, expected {start} to {last}, a choice of {count}; drop the episode")
    names = start + np.arange(count)
    return np.where(names == chosen[:, None].astype(np.int64), 1.0, -1.0)


def observed(name: str, parts: Iterable[np.ndarray]) -> tuple[Choices | Switches, str]:
    """The kind of integer actions of a source that declares no choices: the choices are the values that occur.

    Several booleans per step are boolean actions. Every other value is discrete, with choices from 0, or from the
    smallest value if it is negative, to the largest value.

    Args:
        name: of the action, for messages.
        parts: `[L, size]` of each episode, integers or booleans.

    Returns:
        The part, and a line for the report.

    Raises:
        AimeError: if there are more choices than `MAX_CHOICES`, or no value.
    """
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    for rows in parts:
        if len(rows):
            least, greatest = rows.min(axis=0).astype(object), rows.max(axis=0).astype(object)
            low = least if low is None else np.minimum(low, least)
            high = greatest if high is None else np.maximum(high, greatest)
    if low is None or high is None:
        raise AimeError(f"'{name}' has no value in any episode, expected some; import with --no-actions")
    size = len(low)
    if (low >= 0).all() and (high <= 1).all() and size > 1:
        return Switches(size), f"'{name}' is taken as {size} switches: 0 and 1 occur, the source declares no choices"
    starts = tuple(min(int(value), 0) for value in low)
    counts = tuple(max(int(top) - start + 1, 2) for top, start in zip(high, starts, strict=True))
    if sum(counts) > MAX_CHOICES:
        raise AimeError(
            f"'{name}' holds whole numbers from {min(starts)} to {max(map(int, high))}, expected {MAX_CHOICES} choices "
            "at most; store quantities as floats, or import with --no-actions"
        )
    ranges = ", ".join(f"{start} to {start + count - 1}" for start, count in zip(starts, counts, strict=True))
    return Choices(starts, counts), f"'{name}' is taken as a choice of {ranges}, which occur: the source declares none"


def joined_bounds(parts: Sequence[ActionPart]) -> Range:
    """Minimum and maximum of the values of all parts; NaN where not declared."""
    lows, highs = zip(*(part.bounds for part in parts), strict=True)
    return tuple(itertools.chain(*lows)), tuple(itertools.chain(*highs))


def discrete_columns(parts: Sequence[ActionPart]) -> tuple[bool, ...]:
    """For each value of all parts, whether it is discrete or boolean."""
    return tuple(itertools.chain(*((part.is_discrete,) * part.width for part in parts)))
