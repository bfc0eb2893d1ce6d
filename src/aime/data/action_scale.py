"""Conversion between actions in [-1, 1] and the units of the robot or simulator."""

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

MAX_EXCESS = 10.0
"""Actions may exceed their range by up to this factor and are clipped; larger ones are probably in other units."""


@dataclass(frozen=True)
class ActionScale:
    """A linear map per action, from [low, high] in the source's units to [-1, 1].

    Attributes:
        low: `[A]` value of -1, in the source's units.
        high: `[A]` value of 1; if it equals `low`, the action is constant and maps to 0.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the ranges.

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
        """The scale of actions that are already in [-1, 1]."""
        return cls((-1.0,) * width, (1.0,) * width)

    @classmethod
    def of_all(cls, scales: Sequence[ActionScale]) -> ActionScale:
        """The smallest scale that contains the ranges of all scales, which have the same width."""
        lows, highs = (np.array([getattr(each, name) for each in scales]) for name in ("low", "high"))
        return cls(tuple(lows.min(axis=0).tolist()), tuple(highs.max(axis=0).tolist()))

    @classmethod
    def of_attributes(cls, attributes: Mapping[str, Attribute]) -> ActionScale | None:
        """The scale in a shard's attributes, or None.

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
        """The attributes for shards: lists of numbers as JSON, because an attribute is a scalar."""
        return {"action_low": json.dumps(list(self.low)), "action_high": json.dumps(list(self.high))}

    def __str__(self) -> str:
        """The ranges as text: "-1 to 1, 0 to 4"."""
        return ", ".join(f"{low:g} to {high:g}" for low, high in zip(self.low, self.high, strict=True))

    @property
    def is_identity(self) -> bool:
        """Whether the source's units are [-1, 1]."""
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
        """Convert from the source's units to [-1, 1], clipped; NaN stays NaN.

        Args:
            action: `[...,A]`, a tensor, an array or a list.

        Returns:
            A tensor on the same device for a tensor, otherwise an array; same float type, float32 for integers.

        Raises:
            AimeError: if the last axis is not A wide.
        """
        return _like_given(self._to_unit, action)

    @overload
    def to_source(self, action: Tensor) -> Tensor: ...
    @overload
    def to_source(self, action: ArrayLike) -> np.ndarray: ...
    def to_source(self, action: Tensor | ArrayLike) -> Tensor | np.ndarray:
        """Convert from [-1, 1] to the source's units; types as for `to_unit`."""
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
        """Bounds in float64, if the device has it, on the device of the actions."""
        if action.shape[-1:] != (self.width,):
            raise AimeError(
                f"actions have shape {list(action.shape)}; expected {self.width} numbers in the last axis, as many as "
                "this scale has ranges"
            )
        # Apple's GPUs have no float64
        precise = torch.float32 if action.device.type == "mps" else torch.float64
        low, high = (torch.tensor(each, dtype=precise, device=action.device) for each in (self.low, self.high))
        return low, high

    def outside(self, action: Float[np.ndarray, "L A"]) -> int:
        """The number of values outside the range by more than rounding."""
        low, high = np.array(self.low, np.float64), np.array(self.high, np.float64)
        slack = 1e-5 * np.maximum(high - low, 1e-12)
        return int(((action < low - slack) | (action > high + slack)).sum())


def _like_given(convert: Callable[[Tensor], Tensor], action: Tensor | ArrayLike) -> Tensor | np.ndarray:
    """Apply `convert`, and return the type of array and float of the argument."""
    if isinstance(action, Tensor):
        return convert(action).to(action.dtype if action.is_floating_point() else torch.float32)
    array = np.asarray(action)
    converted = convert(torch.from_numpy(array.astype(np.float64))).numpy()
    return converted.astype(array.dtype.newbyteorder("=") if array.dtype.kind == "f" else np.float32)


def expect_clipped_actions(actions: np.ndarray, scale: ActionScale) -> None:
    """Refuse actions of an environment that are not finite or exceed their range by more than `MAX_EXCESS`.

    Args:
        actions: `[...,A]`, in the units of `scale`.
        scale: the range to which they are clipped.

    Raises:
        AimeError: if one is NaN, infinite, or `MAX_EXCESS` times as far from the centre as its bound.
    """
    if not np.isfinite(actions).all():
        raise AimeError(
            f"an action is NaN or infinite; expected {scale.width} numbers within {scale}: see what the policy computes"
        )
    low, high = np.array(scale.low), np.array(scale.high)
    reach = np.abs(actions - (low + high) / 2) / np.maximum((high - low) / 2, 1e-12)
    beyond = (reach > MAX_EXCESS) & (high > low)
    if beyond.any():
        raise AimeError(
            f"an action is {float(actions[beyond].flat[0]):.4g}; expected numbers within {scale}, to which they are "
            "clipped: in other units? divide by the largest command"
        )
