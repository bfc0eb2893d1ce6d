"""Input and output layers, which the optimizers distinguish from hidden layers by their type."""

from __future__ import annotations

from torch import nn


class BoundaryLayer:
    """An input layer (of pixels, codes or a condition) or an output layer (such as parameters of distributions)."""


class BoundaryLinear(BoundaryLayer, nn.Linear):
    """`nn.Linear` as an input or output layer."""


class BoundaryConv2d(BoundaryLayer, nn.Conv2d):
    """`nn.Conv2d` as an input or output layer."""
