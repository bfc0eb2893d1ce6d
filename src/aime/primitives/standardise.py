"""Numbers in units of their own spread over a data set."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Standardise(nn.Module):
    """(x - mean) / std of each of S numbers, with mean and std as buffers; before `fit` it changes nothing."""

    mean: Float[Tensor, " S"]
    std: Float[Tensor, " S"]

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    @torch.no_grad()
    def fit(self, mean: Float[Tensor, " S"], std: Float[Tensor, " S"]) -> None:
        """Take the mean and the standard deviation of a data set; what never varies there stays in its own unit."""
        # what float32 leaves of the spread of a large constant is rounding
        varies = std > 1e-5 * mean.abs().clamp_min(1)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(varies, std, 1.0))

    def forward(self, values: Float[Tensor, "... S"]) -> Float[Tensor, "... S"]:
        """In units of the spread; NaN stays NaN."""
        return (values.to(self.mean) - self.mean) / self.std

    def restore(self, standardised: Float[Tensor, "... S"]) -> Float[Tensor, "... S"]:
        """In the numbers' own units."""
        return standardised.to(self.mean) * self.std + self.mean
