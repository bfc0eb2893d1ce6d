"""Divergences of the latent's posterior and of the mixture's sticks, and the entropy of the mixture weights."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aime.primitives.distributions import (
    DiagonalGaussian,
    GammaPosterior,
    GaussianMixture,
    Kumaraswamy,
    stick_breaking_kl,
)
from aime.primitives.masked_mean import masked_mean
from aime.primitives.ranks import gather_over_ranks, total_over_ranks

__all__ = [
    "clamped_kl",
    "effective_components",
    "hierarchical_kl",
    "mixture_kl",
    "stick_breaking_kl",
    "weights_entropy",
    "with_gradient_of",
]

FREE_NATS = 1.0
"""Below this batch mean KL_z has no gradient."""

_LOG_OF_NOTHING = -1e4
"""The log weight of what does not count: its exponential is 0, and unlike -inf it has finite gradients."""


def mixture_kl(
    posterior: DiagonalGaussian, prior: GaussianMixture, latents: Float[Tensor, "... latent"]
) -> Float[Tensor, "..."]:
    """E_q[log q(z)] - log Σ_k π_k N(z; μ_k, σ_k²) in nats: closed-form entropy, cross-entropy at the sample z.

    Args:
        posterior: q, mean and std `[...,latent]`.
        prior: the mixture `[...,K,latent]`.
        latents: `[...,latent]`, a sample of q. Its noise makes single values negative at times; their mean is the KL.
    """
    return -posterior.entropy() - prior.log_prob(latents)


def clamped_kl(
    posterior: DiagonalGaussian,
    prior: GaussianMixture,
    latents: Float[Tensor, "... latent"],
    valid: Bool[Tensor, "..."],
) -> Float[Tensor, ""]:
    """KL(q ‖ p) in nats, a mean over valid frames, without a gradient where that mean is below 1 nat.

    The gradient is that of max(1, KL(sg q ‖ p)) + max(1, KL(q ‖ sg p)) (Hafner et al. 2023, DreamerV3, arXiv
    2301.04104, equation 5, with equal weights). The mean is clamped, since single values of the estimate can be
    negative.

    Args:
        posterior: q, mean and std `[...,latent]`.
        prior: p, the mixture `[...,K,latent]`.
        latents: `[...,latent]`, a reparameterised sample of q.
        valid: `[...]`, False for padding.
    """
    to_prior = mixture_kl(posterior.detach(), prior, latents.detach())
    to_posterior = mixture_kl(posterior, prior.detach(), latents)
    trained_prior, trained_posterior = (masked_mean(divergence, valid) for divergence in (to_prior, to_posterior))
    gradient = trained_prior.clamp_min(FREE_NATS) + trained_posterior.clamp_min(FREE_NATS)
    return with_gradient_of(trained_prior, gradient)


def with_gradient_of(value: Float[Tensor, "*shape"], gradient: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """`value`, with the gradient of another expression."""
    return value.detach() + (gradient - gradient.detach())


def hierarchical_kl(sticks: Kumaraswamy, concentration: GammaPosterior) -> Float[Tensor, "..."]:
    """E_q(α) KL(sticks ‖ Beta(1, α)) + KL(q(α) ‖ Gamma(1, 1)) in nats: all that the mixture weights cost.

    Args:
        sticks: parameters `[...,K-1]`.
        concentration: q(α), parameters `[...]`.
    """
    return stick_breaking_kl(sticks, concentration) + concentration.kl()


def weights_entropy(log_weights: Float[Tensor, "*N K"], valid: Bool[Tensor, "*N"]) -> Float[Tensor, ""]:
    """Entropy in nats, 0 to log K, of the mixture weights averaged over the valid frames of all ranks; 0 without any.

    Averaging first keeps components alive across the data without blurring any single step.
    """
    rows = torch.where(valid[..., None], log_weights, _LOG_OF_NOTHING).flatten(0, -2)
    log_sum = torch.logsumexp(gather_over_ranks(torch.logsumexp(rows, dim=0)), dim=0)
    count = total_over_ranks(valid.sum().to(rows.dtype))
    log_mean = log_sum - count.clamp_min(1).log()
    return -(log_mean.exp() * log_mean).sum()


def effective_components(weights: Float[Tensor, "*N K"], valid: Bool[Tensor, "*N"]) -> Float[Tensor, ""]:
    """exp(entropy) of the mixture weights averaged over the valid frames: from 1, where one rules, to K."""
    total = torch.where(valid[..., None], weights, 0).flatten(0, -2).sum(0)
    return torch.special.entr(total / valid.sum().clamp_min(1)).sum().exp()
