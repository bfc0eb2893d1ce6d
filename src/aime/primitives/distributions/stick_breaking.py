"""Stick breaking: mixture weights from stick lengths, and the KL divergence of the sticks from their prior."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from aime.primitives.distributions.gamma import GammaPosterior
from aime.primitives.distributions.kumaraswamy import Kumaraswamy
from aime.primitives.distributions.precision import accurate


def log_mixture_weights(
    log_v: Float[Tensor, "... sticks"], log_one_minus_v: Float[Tensor, "... sticks"]
) -> Float[Tensor, "... components"]:
    """Log weights of π_k = v_k ∏_{j<k} (1-v_j); the last component has the remaining weight (Sethuraman 1994).

    Args:
        log_v: `[...,K-1]`, logs of the stick lengths v in (0, 1).
        log_one_minus_v: `[...,K-1]`, log(1-v).

    Example:
        >>> half = torch.full((2,), 0.5).log()
        >>> log_mixture_weights(half, half).exp()
        tensor([0.5000, 0.2500, 0.2500])
    """
    log_v, log_one_minus_v = accurate(log_v), accurate(log_one_minus_v)
    whole = log_v.new_zeros(*log_v.shape[:-1], 1)
    remaining = torch.cat([whole, log_one_minus_v.cumsum(-1)], dim=-1)
    return torch.cat([log_v, whole], dim=-1) + remaining


def stick_breaking_kl(sticks: Kumaraswamy, concentration: GammaPosterior) -> Float[Tensor, "..."]:
    """Σ_k E_q(α) KL(Kumaraswamy(a_k, b_k) ‖ Beta(1, α)), the sticks' KL divergence from a Dirichlet process, in nats.

    The KL is linear in α and log α, whose expectations have closed forms, so α is not sampled.

    Args:
        sticks: parameters `[...,K-1]`, a and b in [0.02, 50]; outside the result is NaN.
        concentration: q(α), parameters `[...]`.
    """
    exact = concentration.double()
    return sticks.kl_to_beta(exact.mean[..., None], exact.mean_log[..., None]).sum(-1)
