"""A frame's features to slots and the bottom-up attention map."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn

from aime.attention.maps import over_space, with_floor
from aime.primitives.boundary_layers import BoundaryLinear
from aime.primitives.slot_attention import SlotAttention


class BottomUp(NamedTuple):
    """Slots and bottom-up maps of N frames."""

    map: Float[Tensor, "N h w"]
    """U_t, sums to 1."""
    slots: Float[Tensor, "N S width"]
    slot_maps: Float[Tensor, "N S h w"]
    """The share of each cell that each slot takes; sums to 1 over the slots."""
    slot_error: Float[Tensor, " N"]
    """Half the squared distance, summed over cells, channels, of the features from their reconstruction by slots."""


class FeaturePyramid(nn.Module):
    """Features of several scales, added up on one grid (Lin et al. 2017, arXiv 1612.03144, without the smoothing)."""

    def __init__(self, channels: tuple[int, ...], width: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.laterals = nn.ModuleList(nn.Conv2d(each, width, 1) for each in channels)

    def forward(self, pyramid: tuple[Tensor, ...]) -> Float[Tensor, "N width grid grid"]:
        """The levels `[N,C,H,W]` of a pyramid on the grid: finer ones averaged, coarser ones repeated."""
        return torch.stack(
            [self._fit(lateral(level)) for lateral, level in zip(self.laterals, pyramid, strict=True)]
        ).sum(0)

    def _fit(self, features: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C grid grid"]:
        size = features.shape[-1]
        if size >= self.grid:
            return F.avg_pool2d(features, size // self.grid) if size > self.grid else features
        return F.interpolate(features, scale_factor=self.grid // size, mode="nearest")


class BottomUpAttention(nn.Module):
    """U_t = Σ_s ω_s · (map of slot s, normalised over space), ω a softmax of a score of each slot.

    The slots read the frame's feature pyramid on the attention grid. A small decoder, given a slot and a place, says
    what the features there should be, mixed by the slot maps (Locatello et al. 2020, arXiv 2006.15055, equation 2,
    on features as in Seitzer et al. 2023, arXiv 2209.14860): that is what makes a slot hold one thing. Its target, the
    encoder's features normalised, has no gradient.
    """

    def __init__(self, channels: tuple[int, ...], slots: int, width: int, rounds: int, grid: int) -> None:
        super().__init__()
        self.pyramid = FeaturePyramid(channels, width, grid)
        self.places = nn.Parameter(torch.randn(grid * grid, width) * 0.1)
        self.slots = SlotAttention(slots, width, width, rounds)
        self.score = nn.Sequential(nn.LayerNorm(width), BoundaryLinear(width, 1))
        self.broadcast = nn.Parameter(torch.randn(grid * grid, width) * 0.1)
        self.decode = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, channels[1])
        )

    def forward(self, pyramid: tuple[Tensor, ...]) -> BottomUp:
        """Slots and map of the levels at 1/2, 1/4 and 1/8 of the frame, `[N,C,H,W]`."""
        features = self.pyramid(pyramid)
        precise = torch.promote_types(torch.float32, features.dtype)
        height = features.shape[-2]
        with torch.autocast(features.device.type, enabled=False):
            inputs = rearrange(features.to(precise), "n c h w -> n (h w) c") + self.places
            slots = self.slots(inputs)
            maps = rearrange(slots.maps, "n s (h w) -> n s h w", h=height)
            scores = self.score(slots.vectors).softmax(dim=1)
            attended = einsum(scores[..., 0], over_space(maps), "n s, n s h w -> n h w")
            error = self._reconstruction_error(slots.vectors, slots.maps, pyramid[1].detach().to(precise))
        return BottomUp(with_floor(attended), slots.vectors, maps, error)

    def _reconstruction_error(
        self, slots: Float[Tensor, "N S width"], maps: Float[Tensor, "N S M"], features: Float[Tensor, "N C h w"]
    ) -> Float[Tensor, " N"]:
        target = rearrange(F.group_norm(features, 1), "n c h w -> n (h w) c")
        # the maps mix the slots before they are decoded: S times cheaper than decoding each slot at each place
        placed = einsum(maps, slots, "n s m, n s d -> n m d") + self.broadcast
        return 0.5 * (self.decode(placed) - target).square().sum(dim=(1, 2))
