"""What numbers may enter the model: ranges of frames, actions and states, and the likely reason where they are others.

frames    [0, 1], give or take a grey level (1/255): resizing and half precision round
actions   [-1, 1], give or take 0.001
states    any finite number, or NaN where it is not known
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from aime.data.action_scale import FOREIGN, ActionScale
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

    def __enter__(self) -> ValueChecks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None or not issubclass(kind, AimeError):
            for copied, event, judge in self._waiting:
                event.synchronize()
                judge(copied.tolist())

    def extremes(self, values: Tensor, judge: Judge) -> None:
        """Judge the smallest and the largest of some numbers, which are NaN where any number is."""
        if values.numel() == 0 or _recorded(values):
            return
        found = torch.stack(torch.aminmax(values.detach()))
        if found.device.type != "cuda":
            judge(found.tolist())
            return
        copied = torch.empty(found.shape, dtype=found.dtype, pin_memory=True).copy_(found, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._waiting.append((copied, event, judge))


def _recorded(values: Tensor) -> bool:
    if torch.compiler.is_compiling():
        return True
    return values.is_cuda and torch.cuda.is_current_stream_capturing()


def judge_frames(name: str, frames: Float[Tensor, "..."]) -> Judge:
    """Refuses frames that are not in [0, 1]."""

    def judge(extremes: Sequence[float]) -> None:
        low, high = extremes
        if not np.isfinite(extremes).all():
            raise AimeError(f"{not_finite(name, frames)}; expected floats in [0, 1]: see what made them")
        if low < -GREY_LEVEL or high > 1 + GREY_LEVEL:
            raise AimeError(
                f"{name} are floats from {low:.4g} to {high:.4g}; expected [0, 1]: {_frame_range(*extremes)}"
            )

    return judge


def _frame_range(low: float, high: float) -> str:
    """The likely reason for a range of frames, and its remedy."""
    if low >= -0.15 and high <= 1.15:
        return "resized with an overshoot? clamp them to [0, 1]"
    if low >= -0.51 and high <= 0.51:
        return "centred on 0? add 0.5"
    if low >= -1.01 and high <= 1.01:
        return "centred, from -1 to 1? add 1 and halve"
    if low >= -5 and high <= 5:
        return "standardised by a mean and a spread? undo it"
    if low >= -129 and high <= 128 and low < -5:
        return "bytes less 128? add 128 and divide by 255"
    if low >= -1 and high <= 256:
        return "0 to 255? give uint8 or divide by 255"
    if low >= -1 and high <= 65536:
        return "16 bit? divide by 65535"
    return "divide by what is white"


def judge_actions(name: str, actions: Float[Tensor, "..."], scale: ActionScale | None, missing: str = "") -> Judge:
    """Refuses actions that are not in [-1, 1].

    Args:
        name: of the argument.
        actions: what the extremes are of, to say where a number is not finite.
        scale: what -1 and 1 are in the data's units, where that is known.
        missing: what to do about an action that is not known.
    """

    def judge(extremes: Sequence[float]) -> None:
        low, high = extremes
        if not np.isfinite(extremes).all():
            remedy = missing or "see what made them"
            raise AimeError(f"{not_finite(name, actions)}; expected numbers in [-1, 1]: {remedy}")
        if max(-low, high) > 1 + ACTION_TOLERANCE:
            raise AimeError(
                f"{name} are from {low:.4g} to {high:.4g}; expected [-1, 1]: {_action_range(low, high, scale)}"
            )

    return judge


def judge_clipped_actions(name: str, actions: Float[Tensor, "..."], scale: ActionScale | None) -> Judge:
    """Refuses actions, of those that are clipped to [-1, 1], that are not finite or in other units."""

    def judge(extremes: Sequence[float]) -> None:
        low, high = extremes
        if not np.isfinite(extremes).all():
            raise AimeError(f"{not_finite(name, actions)}; expected numbers in [-1, 1]: see what the policy computes")
        if max(-low, high) > FOREIGN:
            reason = _action_range(low, high, scale)
            raise AimeError(
                f"{name} are from {low:.4g} to {high:.4g}; expected about [-1, 1], to which they are clipped: {reason}"
            )

    return judge


def _action_range(low: float, high: float, scale: ActionScale | None) -> str:
    """The likely reason for a range of actions, and its remedy."""
    largest = max(-low, high)
    if scale is not None and not scale.is_identity:
        return f"in the data's units, {scale}? give model.action_scale.to_unit(actions)"
    if largest <= 1.5:
        return "drawn without bounds? clip them"
    if largest <= 360 and largest >= 45:
        return "in degrees? divide by the largest angle that can be commanded"
    return "in the robot's own units? divide by the largest command that it takes"


def judge_states(name: str, states: Float[Tensor, "..."]) -> Judge:
    """Refuses infinite states; NaN, which is a number that is not known, was taken out before."""

    def judge(extremes: Sequence[float]) -> None:
        if not np.isfinite(extremes).all():
            found = not_finite(name, states.masked_fill(states.isnan(), 0))
            raise AimeError(f"{found}; expected finite numbers, or NaN where one is not known: see what made them")

    return judge


def judge_finite(name: str, values: Float[Tensor, "..."], remedy: str) -> Judge:
    """Refuses numbers that are not finite."""

    def judge(extremes: Sequence[float]) -> None:
        if not np.isfinite(extremes).all():
            raise AimeError(f"{not_finite(name, values)}; expected finite numbers: {remedy}")

    return judge


def not_finite(name: str, values: Tensor) -> str:
    """In words, how many of some numbers are NaN or infinite, and which one is the first."""
    wrong = ~values.isfinite()
    first = wrong.nonzero()[0].tolist() if wrong.any() else []
    return f"{name} hold {int(wrong.sum())} numbers of {wrong.numel()} that are NaN or infinite, the first at {first}"
