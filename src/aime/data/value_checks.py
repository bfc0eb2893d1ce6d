"""Which numbers may enter the model, and the likely reason where they are others.

frames    [0, 1], with a tolerance of a grey level (1/255): resizing and half precision round
actions   [-1, 1], with a tolerance of 0.001
states    any finite number, or NaN where it is not known
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

Judge = Callable[[Sequence[float]], None]
"""Raises an `AimeError` for what is wrong with the smallest and the largest number."""


class ValueChecks:
    """Checks the numbers that one call of the public API is given; a context manager around the call.

    On a CPU a check raises at once. On a GPU the smallest and the largest number are copied to the host without waiting
    for them, and judged once the call has queued its own work: the host waits for a copy that lies before that work in
    the queue, so that the GPU never idles, and nothing wrong is returned. While work is compiled or recorded nothing is
    checked.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Tensor, torch.cuda.Event, Judge]] = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None or not issubclass(kind, AimeError):
            for copied, event, judge in self._waiting:
                event.synchronize()
                judge(copied.tolist())

    def look_at(self, values: Tensor, judge: Judge) -> None:
        """Judge the smallest and the largest of some values; both are NaN where any value is."""
        if not values.numel() or torch.compiler.is_compiling():
            return
        if values.is_cuda and torch.cuda.is_current_stream_capturing():
            return
        found = torch.stack(torch.aminmax(values.detach()))
        if found.device.type != "cuda":
            judge(found.tolist())
            return
        copied = torch.empty(found.shape, dtype=found.dtype, pin_memory=True).copy_(found, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._waiting.append((copied, event, judge))


class Allowed(NamedTuple):
    """The numbers that may enter, and what an error says of others."""

    expected: str
    remedy: str = "see what made them"
    """Where a number is NaN or infinite."""
    low: float = -math.inf
    high: float = math.inf
    reason: Callable[[float, float], str] = lambda low, high: ""
    """The likely reason for a range beyond these limits, and its remedy."""

    def judge(self, name: str, values: Tensor) -> Judge:
        """A judge of some values' extremes; the values are read only to say where one is not finite."""

        def judge(extremes: Sequence[float]) -> None:
            low, high = extremes
            if not (math.isfinite(low) and math.isfinite(high)):
                raise AimeError(f"{_not_finite(name, values)}; expected {self.expected}: {self.remedy}")
            if low < self.low or high > self.high:
                reason = self.reason(low, high)
                raise AimeError(f"{name} are from {low:.4g} to {high:.4g}; expected {self.expected}: {reason}")

        return judge


def _not_finite(name: str, values: Tensor) -> str:
    """How many of some numbers are NaN or infinite, and which one is the first."""
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
"""Of the smallest range that holds all numbers of some frames."""


def _frame_reason(low: float, high: float) -> str:
    return next((text for least, most, text in _FRAME_REASONS if low >= least and high <= most), "divide by white")


FRAMES = Allowed("floats in [0, 1]", low=-GREY_LEVEL, high=1 + GREY_LEVEL, reason=_frame_reason)
STATES = Allowed("finite numbers, or NaN where one is not known")
"""Once what is not known is 0."""
FINITE = Allowed("finite numbers")


def allowed_actions(scale: ActionScale | None, remedy: str = "see what made them") -> Allowed:
    """Actions of a model whose training data have a scale, if one is known."""
    most = 1 + ACTION_TOLERANCE
    return Allowed("numbers in [-1, 1]", remedy, -most, most, lambda low, high: _action_reason(low, high, scale))


def clipped_actions(scale: ActionScale | None) -> Allowed:
    """Actions that are then clipped to [-1, 1], of which those far beyond are in other units."""
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
