"""The attention map that attends everywhere alike."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class UniformAttention(nn.Module):
    """A_t = 1/n on each of n cells, whatever is seen or believed: attention switched off."""

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, batch: int, like: Tensor) -> Float[Tensor, "B h w"]:
        """`batch` maps `[B,grid,grid]` that sum to 1, in the type and on the device of `like`."""
        cells = self.grid * self.grid
        return torch.full((batch, self.grid, self.grid), 1 / cells, dtype=like.dtype, device=like.device)
