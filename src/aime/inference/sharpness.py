"""Sharpness of predicted frames: their mean gradient magnitude over that of the true ones.

1 is as sharp as the data. Blurred frames are below 1, grainy ones can be above it: squared error prefers blur where a
prediction is uncertain, and does not show it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from aime.inference.mask_scores import dilated


class Gradients(NamedTuple):
    """The gradient magnitude of each predicted frame of B clips, averaged over all pixels; NaN where not known."""

    true: Float[Tensor, "B F"]
    likeliest: Float[Tensor, "B F"]
    """Of the most likely future."""
    sample: Float[Tensor, "B F"]
    """Of one sampled future."""
    reconstruction: Float[Tensor, "B F"]


def gradients_of(
    true: Float[Tensor, "B F 3 H W"],
    likeliest: Float[Tensor, "B F 3 H W"],
    sample: Float[Tensor, "B F 3 H W"],
    reconstruction: Float[Tensor, "B F 3 H W"],
    masks: UInt8[Tensor, "B F H W"] | None = None,
) -> Gradients:
    """The gradients of all kinds of frames, in [0, 1] a pixel.

    Args:
        true: the frames that are predicted.
        likeliest: the most likely future.
        sample: a sampled one.
        reconstruction: of the true frames.
        masks: of the true frames: other pixels than the body's and their neighbours then count as 0.
    """
    kinds = (true, likeliest, sample, reconstruction)
    # the outline of the body lies between its pixels and the next ones
    near = None if masks is None else dilated(masks > 0)
    found = (magnitude(each) if near is None else magnitude(each) * near for each in kinds)
    return Gradients(*(each.mean(dim=(-2, -1)) for each in found))


def unknown_gradients(unknown: Float[Tensor, "B F"]) -> Gradients:
    """Of clips without masks."""
    return Gradients(*(unknown for _ in Gradients._fields))


def magnitude(frames: Float[Tensor, "*N 3 H W"]) -> Float[Tensor, "*N H W"]:
    """Length of the gradient at each pixel: differences to the next pixel right and below, root mean square of colours.

    The last row and column have no next pixel, and a difference of 0.
    """
    right = F.pad(frames.diff(dim=-1), (0, 1))
    below = F.pad(frames.diff(dim=-2), (0, 0, 0, 1))
    return (right.square() + below.square()).mean(dim=-3).sqrt()
