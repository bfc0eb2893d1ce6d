"""Divergences of the latent's posterior and of the mixture's sticks, and the entropy of the mixture weights."""

from __future__ import annotations

import math

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
from aime.primitives.means import masked_mean
from aime.primitives.ranks import gather_over_ranks, ranks

__all__ = [
    "balanced_kl",
    "effective_components",
    "hierarchical_kl",
    "mixture_kl",
    "stick_breaking_kl",
    "weights_entropy",
]


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


def balanced_kl(
    posterior: DiagonalGaussian,
    prior: GaussianMixture,
    latents: Float[Tensor, "... latent"],
    valid: Bool[Tensor, "..."],
    *,
    prior_weight: float = 1.0,
    posterior_weight: float = 0.1,
    free_nats: float = 1.0,
) -> Float[Tensor, ""]:
    """w_prior max(free, KL(sg q ‖ p)) + w_posterior max(free, KL(q ‖ sg p)), each KL a mean over valid frames.

    The free nats clamp the mean, since single values of the estimate can be negative (Hafner et al. 2023, DreamerV3,
    arXiv 2301.04104, equation 5).

    Args:
        posterior: q, mean and std `[...,latent]`.
        prior: p, the mixture `[...,K,latent]`.
        latents: `[...,latent]`, a reparameterised sample of q.
        valid: `[...]`, False for padding.
        prior_weight: of the term that trains the prior.
        posterior_weight: of the term that keeps the posterior predictable.
        free_nats: below this mean a term is constant and has no gradient.
    """
    to_prior = mixture_kl(posterior.detach(), prior, latents.detach())
    to_posterior = mixture_kl(posterior, prior.detach(), latents)
    trained_prior, trained_posterior = (
        masked_mean(divergence, valid).clamp_min(free_nats) for divergence in (to_prior, to_posterior)
    )
    return prior_weight * trained_prior + posterior_weight * trained_posterior


def hierarchical_kl(sticks: Kumaraswamy, concentration: GammaPosterior) -> Float[Tensor, "..."]:
    """E_q(α) KL(sticks ‖ Beta(1, α)) + KL(q(α) ‖ Gamma(1, 1)) in nats: all that the mixture weights cost.

    Args:
        sticks: parameters `[...,K-1]`.
        concentration: q(α), parameters `[...]`.
    """
    return stick_breaking_kl(sticks, concentration) + concentration.kl()


def weights_entropy(log_weights: Float[Tensor, "... K"]) -> Float[Tensor, ""]:
    """Entropy in nats, 0 to log K, of the mixture weights averaged over all leading axes and all ranks.

    Averaging first keeps components alive across the data without blurring any single step.
    """
    rows = log_weights.flatten(0, -2)
    log_means = torch.logsumexp(rows, dim=0) - math.log(max(1, rows.shape[0]))
    log_mean = torch.logsumexp(gather_over_ranks(log_means), dim=0) - math.log(ranks())
    return -(log_mean.exp() * log_mean).sum()


def effective_components(weights: Float[Tensor, "... K"]) -> Float[Tensor, ""]:
    """exp(entropy) of the mixture weights averaged over all leading axes: from 1, where one rules, to K."""
    return torch.special.entr(weights.flatten(0, -2).mean(0)).sum().exp()
