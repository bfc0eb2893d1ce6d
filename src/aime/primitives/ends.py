"""Layers at the ends of a network, told from hidden ones by their type: their weights are learned in another way."""

from __future__ import annotations

from torch import nn


class End:
    """A layer that reads pixels, codes or a condition, or puts out results such as parameters of distributions.

    Its weights map to or from numbers that have meanings of their own, and not features to features.
    """


class EndLinear(End, nn.Linear):
    """`nn.Linear` at an end."""


class EndConv2d(End, nn.Conv2d):
    """`nn.Conv2d` at an end."""
