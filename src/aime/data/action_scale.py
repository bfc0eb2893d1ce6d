"""How a data set's actions in [-1, 1] and the numbers that its robot or simulator took belong together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from aime.data.shards import Attribute
from aime.errors import AimeError


@dataclass(frozen=True)
class ActionScale:
    """A line for each action, which takes [low, high] to [-1, 1].

    Attributes:
        low: `[A]` what -1 means, in the source's units.
        high: `[A]` what 1 means; where it equals `low`, the action never changed and is 0.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse a range that is none.

        Raises:
            AimeError: if the widths differ, a bound is not finite, or a low one lies above its high one.
        """
        low, high = np.array(self.low, np.float64), np.array(self.high, np.float64)
        if low.shape != high.shape or not (np.isfinite(low) & np.isfinite(high)).all() or (low > high).any():
            raise AimeError(
                f"action range {list(self.low)} to {list(self.high)}: expected finite numbers, low ones not above high "
                "ones; give --action-range LOW HIGH"
            )

    @classmethod
    def identity(cls, width: int) -> ActionScale:
        """Of actions that are in [-1, 1] already."""
        return cls((-1.0,) * width, (1.0,) * width)

    @classmethod
    def of_all(cls, scales: Sequence[ActionScale]) -> ActionScale:
        """The least scale that holds the ranges of all, one or more and of the same width."""
        lows, highs = (np.array([getattr(each, name) for each in scales]) for name in ("low", "high"))
        return cls(tuple(lows.min(axis=0).tolist()), tuple(highs.max(axis=0).tolist()))

    @classmethod
    def of_attributes(cls, attributes: Mapping[str, Attribute]) -> ActionScale | None:
        """The scale that the writer of a shard noted, or None.

        Raises:
            AimeError: if it is damaged.
        """
        if "action_low" not in attributes or "action_high" not in attributes:
            return None
        try:
            low, high = (json.loads(str(attributes[name])) for name in ("action_low", "action_high"))
            return cls(tuple(map(float, low)), tuple(map(float, high)))
        except (ValueError, TypeError) as error:
            raise AimeError(
                f"attributes 'action_low' and 'action_high' are {attributes['action_low']!r} and "
                f"{attributes['action_high']!r}, expected two lists of numbers; import the data set again"
            ) from error

    def attributes(self) -> dict[str, Attribute]:
        """For the shards: lists of numbers in JSON, because an attribute is a scalar."""
        return {"action_low": json.dumps(list(self.low)), "action_high": json.dumps(list(self.high))}

    def __str__(self) -> str:
        """The ranges in words: "-1 to 1, 0 to 4"."""
        return ", ".join(f"{low:g} to {high:g}" for low, high in zip(self.low, self.high, strict=True))

    @property
    def is_identity(self) -> bool:
        """Whether the source's numbers are those in [-1, 1] themselves."""
        return self == ActionScale.identity(self.width)

    @property
    def width(self) -> int:
        """A, the number of actions."""
        return len(self.low)

    def to_unit(self, action: Float[np.ndarray, "L A"]) -> Float32[np.ndarray, "L A"]:
        """From the source's units to [-1, 1], clipped; NaN stays NaN."""
        low, high = np.array(self.low, np.float64), np.array(self.high, np.float64)
        span = high - low
        unit = np.where(span > 0, 2 * (action - low) / np.where(span > 0, span, 1) - 1, action * 0)
        return np.clip(unit, -1, 1).astype(np.float32)

    def to_source(self, action: Float[np.ndarray, "L A"]) -> Float32[np.ndarray, "L A"]:
        """From [-1, 1] back to the source's units."""
        low, high = np.array(self.low, np.float64), np.array(self.high, np.float64)
        return (low + (action.astype(np.float64) + 1) / 2 * (high - low)).astype(np.float32)

    def outside(self, action: Float[np.ndarray, "L A"]) -> int:
        """How many numbers lie outside of the range, by more than rounding."""
        low, high = np.array(self.low, np.float64), np.array(self.high, np.float64)
        slack = 1e-5 * np.maximum(high - low, 1e-12)
        return int(((action < low - slack) | (action > high + slack)).sum())
