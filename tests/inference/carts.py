"""A drawn world of a cart with a thin pole in front of a still scene, of which everything is known."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SIZE = 64


class Carts(NamedTuple):
    """B clips of T frames."""

    frames: Tensor
    """`[B,T,3,H,W]` uint8."""
    masks: Tensor
    """`[B,T,H,W]` uint8: 1 the cart, 2 the pole."""


def scenery(seed: int = 0) -> Tensor:
    """`[3,H,W]` in [0, 1]: dark, and not even."""
    noise = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    return 0.1 + 0.2 * torch.linspace(0, 1, SIZE)[:, None] + 0.05 * noise


def carts(places: Tensor, pole: bool = True, scene: Tensor | None = None) -> Carts:
    """A cart of 8 x 4 pixels with a pole one pixel wide and 14 high, at `places` `[B,T]` (its left edge, 0 to 56).

    Args:
        places: whole numbers.
        pole: whether it is drawn.
        scene: `[3,H,W]` or `[B,T,3,H,W]`, in [0, 1].
    """
    batch, length = places.shape
    masks = torch.zeros(batch, length, SIZE, SIZE, dtype=torch.uint8)
    for clip in range(batch):
        for time in range(length):
            left = int(places[clip, time])
            masks[clip, time, 30:34, left : left + 8] = 1
            if pole:
                masks[clip, time, 16:30, left + 4] = 2
    scene = scenery() if scene is None else scene
    body = torch.tensor([0.8, 0.6, 0.4])[:, None, None]
    values = torch.where(masks[:, :, None] > 0, body, scene)
    return Carts((values * 255).round().to(torch.uint8), masks)


def driving(batch: int, length: int, seed: int = 0) -> Tensor:
    """ClipStarts of carts that drive to and fro."""
    generator = torch.Generator().manual_seed(seed)
    phase = torch.rand(batch, 1, generator=generator) * 6.28
    return (28 + 28 * torch.sin(phase + torch.arange(length) / 4)).round().long().clamp(0, SIZE - 8)
