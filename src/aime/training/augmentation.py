"""Augmentation of a batch on the device: random zoom, the same in every frame of a clip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor

from aime.errors import AimeError, expect_shares


@dataclass(frozen=True)
class ZoomConfig:
    """How much of a clip a random crop keeps, and how often.

    A crop is drawn larger than life: an object that the same action pushes is then elsewhere and moves further, and
    the background no longer lies under the data's mean frame. Where cameras move that is more data; where one camera
    stands still it is a harder world than the one to be predicted.

    Raises:
        AimeError: if `share` is not in [0, 1], or `least` not in (0, 1].
    """

    share: float = 0.0
    """Share of the clips that are zoomed, on average; 0 switches the augmentation off."""
    least: float = 0.85
    """Side of the smallest crop, in units of the frame's; the largest is 1."""

    def __post_init__(self) -> None:
        expect_shares(self, "share", of="zoom")
        if not 0 < self.least <= 1:
            raise AimeError(f"zoom.least is {self.least}; expected more than 0 and at most 1: 0.85 is usual")


def zoom(
    frames: Shaped[Tensor, "B T 3 H W"], config: ZoomConfig, generator: torch.Generator | None = None
) -> Shaped[Tensor, "B T 3 H W"]:
    """Cut one random crop out of each clip, the same from every frame, and resize it to the frame's size.

    Scale and position are uniform; crops keep the frame's shape and lie inside it. Padding repeats a clip's last frame
    and does so afterwards too. Nothing waits for the device.

    Args:
        frames: uint8, 0 to 255, or float of any range.
        config: how much and how often; the very frames come back where `share` is 0.
        generator: a random generator on the frames' device; torch's own by default.

    Returns:
        Frames of the same type; clips that are not zoomed keep every bit.
    """
    if config.share == 0 or config.least == 1:
        return frames
    drawn = torch.rand(4, frames.shape[0], generator=generator, device=frames.device)
    scale = torch.where(drawn[0] < config.share, config.least + (1 - config.least) * drawn[1], 1.0)
    return crop(frames, scale, ((1 - scale) * (2 * drawn[2:] - 1)).mT)


def crop(
    frames: Shaped[Tensor, "B T 3 H W"], scale: Float[Tensor, " B"], centre: Float[Tensor, "B 2"]
) -> Shaped[Tensor, "B T 3 H W"]:
    """Resize a part of each clip to the whole frame, bilinearly; at its edge a crop reads the pixels around it.

    Args:
        frames: uint8, 0 to 255, or float of any range.
        scale: side of the part, in (0, 1], in units of the frame's; at 1 the clip is left as it is.
        centre: (x, y) of the part's centre, with (−1, −1) the frame's upper left corner and (1, 1) its lower right one.
    """
    batch, length, _, height, width = frames.shape
    diagonal = torch.eye(2, device=scale.device) * scale[:, None, None]
    grid = F.affine_grid(torch.cat([diagonal, centre[:, :, None]], 2), [batch, 3, height, width], align_corners=False)
    # all frames of a clip as channels of one picture: one grid serves them, whose weights are computed once
    pictures = rearrange(frames, "b t c h w -> b (t c) h w")
    values = pictures.to(torch.promote_types(pictures.dtype, torch.float32))
    sampled = F.grid_sample(values, grid.to(values.dtype), padding_mode="border", align_corners=False)
    if not pictures.is_floating_point():
        sampled = sampled.round()
    resized = rearrange(sampled.to(frames.dtype), "b (t c) h w -> b t c h w", t=length)
    return torch.where(scale[:, None, None, None, None] < 1, resized, frames)
