"""Kumaraswamy distribution in log space, accurate for a, b from 0.02 to 50."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from aime.primitives.distributions.expected_log_complement import expected_log_complement
from aime.primitives.distributions.precision import accurate

EULER_GAMMA = 0.5772156649015329
LOG_2 = math.log(2)
FAR = 30.0
"""From this x, e^-x is negligible against 1, also in float64."""
NEAR = math.exp(-18)
"""Up to this x, log(1 - e^-x) differs from log x by less than x/2, below 1e-8."""
SMALLEST_DRAW = 1e-30
"""Keeps the log of an exponential draw finite."""


class StickSample(NamedTuple):
    """Stick lengths v in (0, 1), as logs of v and of 1-v, since neither follows accurately from the other."""

    log_v: Float[Tensor, "..."]
    log_one_minus_v: Float[Tensor, "..."]


class Kumaraswamy(NamedTuple):
    """Kumaraswamy(a, b) on (0, 1) with density a b v^(a-1) (1-v^a)^(b-1), by the logs of its parameters.

    Reference: Kumaraswamy 1980; for the log-space form Wasserman & Mateos 2024, arXiv 2410.00660.

    Example:
        >>> uniform = Kumaraswamy(torch.zeros(()), torch.zeros(()))
        >>> uniform.mean
        tensor(0.5000)
    """

    log_a: Float[Tensor, "..."]
    log_b: Float[Tensor, "..."]

    @property
    def mean(self) -> Float[Tensor, "..."]:
        """E[v] = b B(1 + 1/a, b), in (0, 1)."""
        return self.mean_stick().log_v.exp()

    def mean_stick(self) -> StickSample:
        """The mean in log space: log E[v] and log(1 - E[v])."""
        # float64: near v = 1 the complement is a small difference of large log-gammas
        inverse_a, b = self.log_a.double().neg().exp(), self.log_b.double().exp()
        log_mean = torch.lgamma(1 + inverse_a) + torch.lgamma(1 + b) - torch.lgamma(1 + inverse_a + b)
        dtype = accurate(self.log_a).dtype
        return StickSample(log_mean.to(dtype), torch.log(-torch.expm1(log_mean)).to(dtype))

    def log_prob(self, log_v: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Log density at v (with respect to v, not to log v), in nats, from `log_v` < 0."""
        log_a, log_b, log_v = accurate(self.log_a), accurate(self.log_b), accurate(log_v)
        log_power_rest = log1mexp(-log_a.exp() * log_v)
        return log_a + log_b + torch.expm1(log_a) * log_v + torch.expm1(log_b) * log_power_rest

    def rsample(self) -> StickSample:
        """One sample with gradients by the inverse CDF, v = (1 - e^(-s/b))^(1/a) with s ~ Exp(1).

        Computed in log space: both logs are finite and accurate even if v or 1-v underflows.
        """
        log_a, log_b = accurate(self.log_a), accurate(self.log_b)
        draw = torch.empty_like(log_a).exponential_().clamp_min(SMALLEST_DRAW)
        log_minus_log_v = _complement(draw.log() - log_b) - log_a
        return StickSample(-log_minus_log_v.exp(), -_complement(log_minus_log_v).exp())

    def kl_to_beta(
        self, concentration: Float[Tensor, "..."], log_concentration: Float[Tensor, "..."]
    ) -> Float[Tensor, "..."]:
        """E_α KL(Kumaraswamy(a, b) ‖ Beta(1, α)) in nats, from E[α] and E[log α], in which it is linear.

        (a-1)/a (-γ - ψ(b) - 1/b) + log ab - (b-1)/b - E[log α] - (E[α]-1) E[log(1-v)]
        (Nalisnick & Smyth 2017, arXiv 1605.06197, with the series replaced by the integral).

        Args:
            concentration: E[α] > 0, broadcastable to the parameters.
            log_concentration: E[log α].
        """
        # float64: at b = 0.02 terms near 50 cancel to a KL near 0
        log_a, log_b = self.log_a.double(), self.log_b.double()
        inverse_a, b = log_a.neg().exp(), log_b.exp()
        expected_log_v_power = -EULER_GAMMA - torch.digamma(b + 1)
        negative_entropy = (1 - inverse_a) * expected_log_v_power + log_a + log_b - (1 - 1 / b)
        expected_log_rest = expected_log_complement(log_a, log_b)
        expected_log_beta = log_concentration.double() + (concentration.double() - 1) * expected_log_rest
        return (negative_entropy - expected_log_beta).to(accurate(self.log_a).dtype)


def log1mexp(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """log(1 - e^-x) for x > 0, accurate at both ends (Mächler 2012, "Accurately computing log(1 - exp(-|a|))")."""
    # clamped to keep the gradient of the unused branch finite
    small = torch.log(-torch.expm1(-x.clamp(max=LOG_2)))
    large = torch.log1p(-torch.exp(-x.clamp(min=LOG_2)))
    return torch.where(x < LOG_2, small, large)


def _complement(log_x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """log(-log(1 - e^-x)) from log x, over the whole line; applying it twice gives log x back.

    It turns log(-log p) into log(-log(1-p)), the form in which neither probability underflows.
    """
    middle = -log1mexp(log_x.clamp(math.log(NEAR), math.log(FAR)).exp())
    minus_log = torch.where(log_x < math.log(NEAR), -log_x.clamp(max=math.log(NEAR)), middle)
    return torch.where(log_x > math.log(FAR), -log_x.exp(), minus_log.log())
