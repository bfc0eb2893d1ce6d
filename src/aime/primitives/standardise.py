"""Standardisation of vectors by the mean and standard deviation of a data set."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Standardise(nn.Module):
    """(x - mean) / std for each of S numbers, with mean and std as buffers; the identity before `fit`."""

    mean: Float[Tensor, " S"]
    std: Float[Tensor, " S"]

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    @torch.no_grad()
    def fit(self, mean: Float[Tensor, " S"], std: Float[Tensor, " S"]) -> None:
        """Set mean and standard deviation; numbers that are constant in the data set keep their unit."""
        # a smaller deviation from a large constant is float32 rounding
        varies = std > 1e-5 * mean.abs().clamp_min(1)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(varies, std, 1.0))

    def forward(self, values: Float[Tensor, "... S"]) -> Float[Tensor, "... S"]:
        """Standardise; NaN stays NaN."""
        return (values.to(self.mean) - self.mean) / self.std

    def restore(self, standardised: Float[Tensor, "... S"]) -> Float[Tensor, "... S"]:
        """The inverse of `forward`."""
        return standardised.to(self.mean) * self.std + self.mean
