"""How a data set's actions in [-1, 1] and the numbers that its robot or simulator took belong together."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from aime.data.shards import Attribute
from aime.errors import AimeError

FOREIGN = 10.0
"""Actions that are clipped (a planner's noise, an environment's step) may be so many times too large; what
is beyond that is in other units."""


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

    @overload
    def to_unit(self, action: Tensor) -> Tensor: ...
    @overload
    def to_unit(self, action: ArrayLike) -> np.ndarray: ...
    def to_unit(self, action: Tensor | ArrayLike) -> Tensor | np.ndarray:
        """From the source's units to [-1, 1], clipped; NaN stays NaN.

        Args:
            action: `[...,A]`, a tensor, an array or a list.

        Returns:
            A tensor on its device for a tensor, else an array; of the same kind of float, float32 for whole numbers.

        Raises:
            AimeError: if the last axis is not A wide.
        """
        return _like_given(self._to_unit, action)

    @overload
    def to_source(self, action: Tensor) -> Tensor: ...
    @overload
    def to_source(self, action: ArrayLike) -> np.ndarray: ...
    def to_source(self, action: Tensor | ArrayLike) -> Tensor | np.ndarray:
        """From [-1, 1] back to the source's units; it takes and gives what `to_unit` does."""
        return _like_given(self._to_source, action)

    def _to_unit(self, action: Float[Tensor, "... A"]) -> Float[Tensor, "... A"]:
        low, high = self._bounds(action)
        action, span = action.to(low), high - low
        unit = torch.where(span > 0, 2 * (action - low) / torch.where(span > 0, span, 1) - 1, action * 0)
        return unit.clamp(-1, 1)

    def _to_source(self, action: Float[Tensor, "... A"]) -> Float[Tensor, "... A"]:
        low, high = self._bounds(action)
        return low + (action.to(low) + 1) / 2 * (high - low)

    def _bounds(self, action: Tensor) -> tuple[Float[Tensor, " A"], Float[Tensor, " A"]]:
        """Lowest and highest numbers, precise and on the device of some actions."""
        if action.shape[-1:] != (self.width,):
            raise AimeError(
                f"actions have shape {list(action.shape)}; expected {self.width} numbers in the last axis, as many as "
                "this scale has ranges"
            )
        # what has no float64 (Apple's GPUs) is as precise as it can be
        precise = torch.float32 if action.device.type == "mps" else torch.float64
        low, high = (torch.tensor(each, dtype=precise, device=action.device) for each in (self.low, self.high))
        return low, high

    def outside(self, action: Float[np.ndarray, "L A"]) -> int:
        """How many numbers lie outside of the range, by more than rounding."""
        low, high = np.array(self.low, np.float64), np.array(self.high, np.float64)
        slack = 1e-5 * np.maximum(high - low, 1e-12)
        return int(((action < low - slack) | (action > high + slack)).sum())


def _like_given(convert: Callable[[Tensor], Tensor], action: Tensor | ArrayLike) -> Tensor | np.ndarray:
    """What `convert` makes of some actions, as the kind of array and of float that they are."""
    if isinstance(action, Tensor):
        return convert(action).to(action.dtype if action.is_floating_point() else torch.float32)
    array = np.asarray(action)
    converted = convert(torch.from_numpy(array.astype(np.float64))).numpy()
    return converted.astype(array.dtype.newbyteorder("=") if array.dtype.kind == "f" else np.float32)


def expect_clipped_actions(actions: np.ndarray, scale: ActionScale) -> None:
    """Refuse an environment's actions that are not finite, or beyond anything that clipping is meant for.

    Args:
        actions: `[...,A]`, in the units of `scale`.
        scale: what they are clipped to.

    Raises:
        AimeError: if one is NaN or infinite, or `FOREIGN` times as far from the middle as its bound.
    """
    if not np.isfinite(actions).all():
        raise AimeError(
            f"an action is NaN or infinite; expected {scale.width} numbers within {scale}: see what the policy computes"
        )
    low, high = np.array(scale.low), np.array(scale.high)
    reach = np.abs(actions - (low + high) / 2) / np.maximum((high - low) / 2, 1e-12)
    beyond = (reach > FOREIGN) & (high > low)
    if beyond.any():
        raise AimeError(
            f"an action is {float(actions[beyond].flat[0]):.4g}; expected numbers within {scale}, to which they are "
            "clipped: in other units? divide by the largest command"
        )
