"""The ELBO task: reconstruction, the KLs of latent and sticks, and the entropy of the mixture weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from aime.attention.maps import map_kl
from aime.attention.schema import Attention
from aime.dynamics.prior import DirichletProcessMixture
from aime.objectives.behaviour import Terms, arrival_terms
from aime.objectives.ledger import TaskLoss, gaussian_nats, unless_off, weigh
from aime.objectives.texture import texture_nats
from aime.objectives.weights import AttentionBalance, ElboWeights, LossWeights
from aime.primitives.masked_mean import masked_mean
from aime.representation.divergences import balanced_kl, hierarchical_kl, weights_entropy, with_gradient_of
from aime.world_model.model import AIME
from aime.world_model.outputs import SequenceOutput, Targets


class ElboTerms(NamedTuple):
    """Scalars in nats per frame; None where switched off, by a weight of 0 or with the part that a term is about."""

    reconstruction: Float[Tensor, ""] | None
    """-log p(x_t | z_t, A_t): pixels are N(x̂, σ²/w), w the precision that attention gives them."""
    kl_z: Float[Tensor, ""] | None
    """KL(q ‖ p) at the sample of q; the weights of its gradient to each side are `LossWeights.kl_balance`."""
    kl_hierarchical: Float[Tensor, ""] | None
    """None where the prior has one component: there are no sticks."""
    kl_attention: Float[Tensor, ""] | None
    """KL(A_t ‖ P_t) + KL(sg U_t ‖ P_t); the weights of the first one's gradient to each side are
    `LossWeights.attention_balance`. None where attention is uniform."""
    entropy: Float[Tensor, ""] | None
    """Minus the entropy of the mixture weights averaged over the batch's frames, in [-log K, 0]; None where the prior
    has one component."""
    gram: Float[Tensor, ""] | None
    """The textures' distance, on a few frames (`texture_nats`)."""
    reward: Float[Tensor, ""] | None
    """Cross-entropy of the reward's two bins under p(reward | h_{t-1}, z_t), over the frames whose reward is known;
    None where control is switched off."""
    continuation: Float[Tensor, ""] | None
    """-log p(ended or not | h_{t-1}, z_t)."""
    state_nll: Float[Tensor, ""] | None
    """-log p(s_t | h_{t-1}, z_t) of the standardised state, its known numbers; None where the model observes none."""


def elbo_loss(
    model: AIME,
    output: SequenceOutput,
    frames: Float[Tensor, "B T 3 H W"],
    targets: Targets,
    weights: LossWeights,
) -> TaskLoss:
    """-log p(x|z,A) + KL_z + KL_hierarchical + KL_attention - ω·entropy + γ·Gram, on frames in [0, 1], without padding.

    And what is observed beside the frames: -log p(reward, continuation, state | h, z).

    The likelihood of a pixel is N(x̂, σ²/w), w its precision, which is higher where the model attends. σ² is this
    batch's own mean of w times the squared error, the most likely one (optimal σ-VAE: Rybkin et al. 2021, arXiv
    2006.13202, equation 5), so that nats of reconstruction and of KL keep their true proportion.
    """
    wanted, balance, valid = weights.elbo, weights.kl_balance, targets.valid
    attends = model.attention.attends
    squared_error = (output.reconstructions - frames).square().mean(dim=2)
    model.decoder.calibrate(masked_mean(squared_error.mean(dim=(2, 3)), valid))
    precision = pixel_precision(output.attention.fused, frames.shape[-1], model.config.attention.precision)
    weighted, log_precision = (precision * squared_error).mean(dim=(2, 3)), precision.log().mean(dim=(2, 3))
    variance = masked_mean(weighted, valid).detach().clamp_min(1e-6)
    terms = ElboTerms(
        reconstruction=unless_off(
            wanted.reconstruction,
            lambda: masked_mean(gaussian_nats(weighted, variance, frames[0, 0].numel(), log_precision), valid),
        ),
        kl_z=unless_off(
            wanted.kl_z,
            lambda: balanced_kl(
                output.posterior,
                output.prior.mixture,
                output.latents,
                valid,
                prior_weight=balance.prior,
                posterior_weight=balance.posterior,
                free_nats=balance.free_nats,
            ),
        ),
        kl_attention=unless_off(
            attends * wanted.kl_attention,
            lambda: masked_mean(attention_kl(output.attention, weights.attention_balance), valid),
        ),
        gram=unless_off(wanted.gram, lambda: texture_nats(model, output.reconstructions, frames, valid)),
        **mixture_terms(lambda: output.prior, valid, wanted),
        **arrival_terms(model.dynamics, lambda: output.track, targets, wanted),
    )
    return weigh("elbo", terms, wanted)


def mixture_terms(
    prior: Callable[[], DirichletProcessMixture], valid: Bool[Tensor, "B T"], wanted: ElboWeights
) -> Terms:
    """`kl_hierarchical` and `entropy`: what the mixture weights cost, and minus the entropy of their mean."""
    weights = {"kl_hierarchical": wanted.kl_hierarchical, "entropy": wanted.entropy}
    if not any(weights.values()) or prior().mixture.log_weights.shape[-1] == 1:
        return dict.fromkeys(weights)
    sticks, concentration, mixture = prior().sticks, prior().concentration, prior().mixture
    return {
        "kl_hierarchical": unless_off(
            wanted.kl_hierarchical, lambda: masked_mean(hierarchical_kl(sticks, concentration), valid)
        ),
        "entropy": unless_off(wanted.entropy, lambda: -weights_entropy(mixture.log_weights, valid)),
    }


def attention_kl(attention: Attention, balance: AttentionBalance) -> Float[Tensor, "B T"]:
    """KL(A_t ‖ P_t) + KL(sg U_t ‖ P_t) in nats; the gradient of the first to P_t and to A_t is weighted apart.

    The first keeps A_t near what could be expected. The second makes P_t predict the bottom-up map, of which A_t may
    hold little. The value is the sum of the two divergences, whatever the weights.
    """
    to_prior = map_kl(attention.fused.detach(), attention.prior)
    to_posterior = map_kl(attention.fused, attention.prior.detach())
    gradient = balance.prior * to_prior + balance.posterior * to_posterior
    return with_gradient_of(to_prior, gradient) + map_kl(attention.bottom_up.detach(), attention.prior)


def pixel_precision(maps: Float[Tensor, "B T h w"], size: int, share: float) -> Float[Tensor, "B T size size"]:
    """1 - ρ + ρ·A over the pixels of a frame, A with mean 1, without gradient, ρ = `share`.

    With one, the model would lower its loss by looking away from what it cannot draw.
    """
    relative = maps.detach() * maps.shape[-2] * maps.shape[-1]
    fine = F.interpolate(relative, (size, size), mode="nearest")
    return 1 - share + share * fine
