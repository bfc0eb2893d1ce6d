"""Gaussian with a diagonal covariance."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from aime.primitives.distributions.precision import accurate

LOG_2PI = math.log(2 * math.pi)


class DiagonalGaussian(NamedTuple):
    """N(mean, diag(std²)) over the last axis; std > 0, in units of the value. Nats throughout.

    Example:
        >>> standard = DiagonalGaussian(torch.zeros(36), torch.ones(36))
        >>> standard.kl(standard)
        tensor(0.)
    """

    mean: Float[Tensor, "... D"]
    std: Float[Tensor, "... D"]

    def log_prob(self, value: Float[Tensor, "... D"]) -> Float[Tensor, "..."]:
        """Log density of `[...,D]`, summed over D, in nats."""
        mean, std = accurate(self.mean), accurate(self.std)
        standardised = (accurate(value) - mean) / std
        return -(0.5 * standardised.square() + std.log() + 0.5 * LOG_2PI).sum(-1)

    def entropy(self) -> Float[Tensor, "..."]:
        """½ Σ_d log(2πe σ_d²), in nats."""
        return (accurate(self.std).log() + 0.5 * (LOG_2PI + 1)).sum(-1)

    def rsample(self) -> Float[Tensor, "... D"]:
        """One reparametrised sample `[...,D]`, mean + std · noise, with gradients."""
        mean, std = accurate(self.mean), accurate(self.std)
        return torch.addcmul(mean, std, torch.randn_like(mean))

    def kl(self, other: DiagonalGaussian) -> Float[Tensor, "..."]:
        """KL(self ‖ other) = Σ_d log(s/σ) + (σ² + (μ-m)²) / 2s² - ½, for other = N(m, s²), in nats."""
        std, other_std = accurate(self.std), accurate(other.std)
        ratio = std / other_std
        shift = (accurate(self.mean) - accurate(other.mean)) / other_std
        return (0.5 * (ratio.square() + shift.square() - 1) - ratio.log()).sum(-1)

    def unflatten(self, batch: int) -> DiagonalGaussian:
        """Split the first axis, `[B·T,D]` -> `[B,T,D]`."""
        return DiagonalGaussian(self.mean.unflatten(0, (batch, -1)), self.std.unflatten(0, (batch, -1)))

    def detach(self) -> DiagonalGaussian:
        """The same distribution without gradients."""
        return DiagonalGaussian(self.mean.detach(), self.std.detach())


def bounded_std(raw: Float[Tensor, "..."], min_std: float, max_std: float) -> Float[Tensor, "..."]:
    """A standard deviation in (min_std, max_std): log σ is a sigmoid of `raw` scaled to the bounds' logs."""
    low, high = math.log(min_std), math.log(max_std)
    return torch.exp(low + (high - low) * torch.sigmoid(accurate(raw)))


def raw_of_std(std: float, min_std: float, max_std: float) -> float:
    """The inverse of `bounded_std`, for min_std < std < max_std."""
    share = math.log(std / min_std) / math.log(max_std / min_std)
    return math.log(share / (1 - share))
