"""The ELBO task: reconstruction, the KLs of latent and sticks, and the entropy of the mixture weights."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from aime.objectives.ledger import TaskLoss, gaussian_nats, masked_mean, weigh
from aime.objectives.weights import LossWeights
from aime.representation.divergences import balanced_kl, hierarchical_kl, weights_entropy
from aime.world_model.model import AIME
from aime.world_model.outputs import SequenceOutput


class ElboTerms(NamedTuple):
    """Scalars in nats per frame."""

    reconstruction: Float[Tensor, ""]
    kl_z: Float[Tensor, ""]
    kl_hierarchical: Float[Tensor, ""]
    entropy: Float[Tensor, ""]


def elbo_loss(
    model: AIME,
    output: SequenceOutput,
    frames: Float[Tensor, "B T 3 H W"],
    valid: Bool[Tensor, "B T"],
    weights: LossWeights,
) -> TaskLoss:
    """-log p(x|z,A) + KL_z + KL_hierarchical - ω·entropy, on frames in [0, 1]; padding (`valid` False) is left out.

    The likelihood's variance is this batch's own mean squared error (optimal σ-VAE: Rybkin et al. 2021, arXiv
    2006.13202, equation 5), so that nats of reconstruction and of KL keep their true proportion.
    """
    squared_error = (output.reconstructions - frames).square().mean(dim=(2, 3, 4))
    variance = model.decoder.calibrate(masked_mean(squared_error, valid))
    reconstruction = gaussian_nats(squared_error, variance, frames[0, 0].numel())
    kl_z = balanced_kl(
        output.posterior,
        output.prior.mixture,
        output.latents,
        valid,
        prior_weight=weights.kl_balance.prior,
        posterior_weight=weights.kl_balance.posterior,
        free_nats=weights.kl_balance.free_nats,
    )
    kl_sticks = hierarchical_kl(output.prior.sticks, output.prior.concentration)
    terms = ElboTerms(
        reconstruction=masked_mean(reconstruction, valid),
        kl_z=kl_z,
        kl_hierarchical=masked_mean(kl_sticks, valid),
        entropy=-weights_entropy(output.prior.mixture.log_weights),
    )
    return weigh("elbo", terms, weights.elbo)
