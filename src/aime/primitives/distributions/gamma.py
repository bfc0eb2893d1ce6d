"""Gamma posterior of the concentration of a Dirichlet process."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from aime.primitives.distributions.precision import accurate


class GammaPosterior(NamedTuple):
    """q(α) = Gamma(concentration c, rate r), by the logs of its parameters; the prior of α is Gamma(1, 1).

    Example:
        >>> GammaPosterior(torch.zeros(()), torch.zeros(())).kl()
        tensor(0.)
    """

    log_concentration: Float[Tensor, "..."]
    log_rate: Float[Tensor, "..."]

    @property
    def mean(self) -> Float[Tensor, "..."]:
        """E[α] = c / r."""
        return torch.exp(accurate(self.log_concentration) - accurate(self.log_rate))

    @property
    def mean_log(self) -> Float[Tensor, "..."]:
        """E[log α] = ψ(c) - log r."""
        return torch.digamma(accurate(self.log_concentration).exp()) - accurate(self.log_rate)

    def kl(self) -> Float[Tensor, "..."]:
        """KL(q ‖ Gamma(1, 1)) = (c-1) ψ(c) - log Γ(c) + log r + c/r - c, in nats (Penny 2001)."""
        exact = self.double()
        concentration = exact.log_concentration.exp()
        divergence = (
            (concentration - 1) * torch.digamma(concentration)
            - torch.lgamma(concentration)
            + exact.log_rate
            + exact.mean
            - concentration
        )
        return divergence.to(accurate(self.log_rate).dtype)

    def double(self) -> GammaPosterior:
        """The same distribution in float64."""
        return GammaPosterior(self.log_concentration.double(), self.log_rate.double())
