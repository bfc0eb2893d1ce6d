"""Several losses to one gradient: the balancers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Balancer(Protocol):
    """Turns the losses of several tasks into one gradient, added to `.grad` of every parameter they reach."""

    def backward(self, losses: Sequence[Tensor]) -> None:
        """Differentiate scalar losses `[tasks]`."""


class Sum:
    """The plain sum of the losses, differentiated once."""

    def backward(self, losses: Sequence[Tensor]) -> None:
        """Add the gradient of the sum to `.grad`."""
        total = losses[0]
        for loss in losses[1:]:
            total = total + loss
        total.backward()
