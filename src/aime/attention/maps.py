"""Attention maps: distributions over the cells of a grid that sum to 1, how far apart they are and how they move."""

from __future__ import annotations

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

FLOOR = 0.01
"""Share of every map that is spread evenly, so that the logarithm of a cell is never far below that of 1/n."""


CELL = 4
"""Pixels of a frame along each side of a map's cell."""


def over_pixels(maps: Float[Tensor, "*N h w"]) -> Float[Tensor, "*N H W"]:
    """Maps at the frame's resolution: each cell's weight is spread evenly over its 4 x 4 pixels, so the sum stays."""
    return maps.repeat_interleave(CELL, dim=-2).repeat_interleave(CELL, dim=-1) / CELL**2


def with_floor(maps: Float[Tensor, "... h w"]) -> Float[Tensor, "... h w"]:
    """Maps that sum to 1, mixed with 1 % of the uniform one."""
    return (1 - FLOOR) * maps + FLOOR / (maps.shape[-2] * maps.shape[-1])


def over_space(weights: Float[Tensor, "... h w"]) -> Float[Tensor, "... h w"]:
    """Non-negative weights divided by their sum over the grid."""
    return weights / weights.sum(dim=(-2, -1), keepdim=True).clamp_min(1e-8)


def map_kl(left: Float[Tensor, "... h w"], right: Float[Tensor, "... h w"]) -> Float[Tensor, "..."]:
    """KL(left ‖ right) = Σ left log(left/right) of two categorical distributions over the cells, in nats."""
    return (left * (left.clamp_min(1e-12).log() - right.clamp_min(1e-12).log())).sum(dim=(-2, -1))


def centre_of_mass(maps: Float[Tensor, "... h w"]) -> Float[Tensor, "... 2"]:
    """(x, y) of the mean cell, in cells from the middle of the left upper one: x to the right, y down."""
    height, width = maps.shape[-2:]
    columns = torch.arange(width, dtype=maps.dtype, device=maps.device)
    rows = torch.arange(height, dtype=maps.dtype, device=maps.device)
    x = einsum(maps, columns, "... h w, w -> ...")
    y = einsum(maps, rows, "... h w, h -> ...")
    return torch.stack([x, y], dim=-1)


def shift(maps: Float[Tensor, "N h w"], motion: Float[Tensor, "N 2"]) -> Float[Tensor, "N h w"]:
    """Maps moved by (dx, dy) cells with linear interpolation; what leaves the grid is lost, and the sum falls.

    Two matrix products a map, Y M Xᵀ with X_ij = max(0, 1 - |i - j - dx|): no convolution, and a gradient to both.
    """
    columns = _tent(maps.shape[-1], motion[:, 0])
    rows = _tent(maps.shape[-2], motion[:, 1])
    return rows @ maps @ columns.transpose(-1, -2)


def _tent(size: int, distance: Float[Tensor, " N"]) -> Float[Tensor, "N size size"]:
    index = torch.arange(size, dtype=distance.dtype, device=distance.device)
    return (1 - (index[:, None] - index - distance[:, None, None]).abs()).clamp_min(0)
