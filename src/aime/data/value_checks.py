"""Range checks of the model's inputs, with the likely reason for values out of range.

frames    [0, 1], with a tolerance of 1/255 for rounding by resizing and half precision
actions   [-1, 1], with a tolerance of 0.001
states    any finite number, or NaN if unknown
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple

import torch
from torch import Tensor

from aime.data.action_scale import MAX_EXCESS, ActionScale
from aime.errors import AimeError
from aime.primitives.pixels import GREY_LEVEL

ACTION_TOLERANCE = 1e-3

RangeCheck = Callable[[Sequence[float]], None]
"""Checks the minimum and the maximum of values, and raises an `AimeError`."""


class ValueChecks:
    """Checks the inputs of one call of the public API; a context manager around the call.

    On a CPU a check raises immediately. On a GPU, minimum and maximum are copied to the host asynchronously and checked
    at the end of the context, after the call has queued its work, so that the GPU does not idle. Nothing is checked
    during compilation or CUDA graph capture.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Tensor, torch.cuda.Event, RangeCheck]] = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None or not issubclass(kind, AimeError):
            for copied, event, check in self._waiting:
                event.synchronize()
                check(copied.tolist())

    def check_range(self, values: Tensor, check: RangeCheck) -> None:
        """Check the minimum and the maximum of values; both are NaN if any value is."""
        if not values.numel() or torch.compiler.is_compiling():
            return
        if values.is_cuda and torch.cuda.is_current_stream_capturing():
            return
        found = torch.stack(torch.aminmax(values.detach()))
        if found.device.type != "cuda":
            check(found.tolist())
            return
        copied = torch.empty(found.shape, dtype=found.dtype, pin_memory=True).copy_(found, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._waiting.append((copied, event, check))


class Allowed(NamedTuple):
    """The allowed range of values, and the texts of its error."""

    expected: str
    remedy: str = "see what made them"
    """For NaN or infinity."""
    low: float = -math.inf
    high: float = math.inf
    reason: Callable[[float, float], str] = lambda low, high: ""
    """The likely reason for values from low to high, and a remedy."""

    def check(self, name: str, values: Tensor) -> RangeCheck:
        """A check of the minimum and maximum of `values`, which are read only to locate one that is not finite."""

        def check(extremes: Sequence[float]) -> None:
            low, high = extremes
            if not (math.isfinite(low) and math.isfinite(high)):
                raise AimeError(f"{_not_finite(name, values)}; expected {self.expected}: {self.remedy}")
            if low < self.low or high > self.high:
                reason = self.reason(low, high)
                raise AimeError(f"{name} are from {low:.4g} to {high:.4g}; expected {self.expected}: {reason}")

        return check


def _not_finite(name: str, values: Tensor) -> str:
    """A text with the number of non-finite values and the position of the first."""
    wrong = ~values.isfinite()
    first = wrong.nonzero()[0].tolist() if wrong.any() else []
    return f"{name} hold {int(wrong.sum())} numbers of {wrong.numel()} that are NaN or infinite, the first at {first}"


_FRAME_REASONS = (
    (-0.15, 1.15, "resized with an overshoot? clamp them to [0, 1]"),
    (-0.51, 0.51, "centred on 0? add 0.5"),
    (-1.01, 1.01, "centred, from -1 to 1? add 1 and halve"),
    (-5, 5, "standardised by a mean and a spread? undo it"),
    (-1, 256, "0 to 255? give uint8 or divide by 255"),
    (-1, 65536, "16 bit? divide by 65535"),
    (-129, 128, "bytes less 128? add 128 and divide by 255"),
)
"""Likely reasons by range; the first range that contains all values applies."""


def _frame_reason(low: float, high: float) -> str:
    return next((text for least, most, text in _FRAME_REASONS if low >= least and high <= most), "divide by white")


FRAMES = Allowed("floats in [0, 1]", low=-GREY_LEVEL, high=1 + GREY_LEVEL, reason=_frame_reason)
STATES = Allowed("finite numbers, or NaN where one is not known")
"""For states with unknown numbers set to 0."""
FINITE = Allowed("finite numbers")


def allowed_actions(scale: ActionScale | None, remedy: str = "see what made them") -> Allowed:
    """The range of actions; `scale`, if known, is that of the training data."""
    most = 1 + ACTION_TOLERANCE
    return Allowed("numbers in [-1, 1]", remedy, -most, most, lambda low, high: _action_reason(low, high, scale))


def clipped_actions(scale: ActionScale | None) -> Allowed:
    """The range of actions that are then clipped to [-1, 1]; values far outside are probably in other units."""
    allowed = allowed_actions(scale, "see what the policy computes")
    expected = "numbers of about [-1, 1], to which they are clipped"
    return allowed._replace(expected=expected, low=-MAX_EXCESS, high=MAX_EXCESS)


def _action_reason(low: float, high: float, scale: ActionScale | None) -> str:
    if scale is not None and not scale.is_identity:
        return f"in the data's units, {scale}? give model.action_scale.to_unit(actions)"
    largest = max(-low, high)
    if largest <= 1.5:
        return "drawn without bounds? clip them"
    if 45 <= largest <= 360:
        return "in degrees? divide by the largest angle that can be commanded"
    return "in the robot's own units? divide by the largest command that it takes"
