"""The ELBO task: reconstruction, the KLs of latent and sticks, entropy of the mixture weights, reward, end and state.

The likelihood of a pixel is N(x̂, σ²/w), w its precision, which is higher where the model attends. σ² is this batch's
own mean of w times the squared error, so that nats of reconstruction and of KL keep their true proportion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from aime.attention.maps import map_kl
from aime.attention.schema import Attention
from aime.objectives import latents
from aime.objectives.ledger import Scalar, frame_nats
from aime.objectives.passes import Pass
from aime.primitives.draws import draw_valid_first
from aime.primitives.frozen import frozen
from aime.primitives.gram import gram_loss, gram_matrix
from aime.primitives.masked_mean import masked_mean
from aime.representation.divergences import clamped_kl, with_gradient_of
from aime.world_model.model import AIME

TEXTURE_FRAMES = 16
"""Frames of a batch whose textures are compared in a step, drawn at random."""


def reconstruction(given: Pass) -> Scalar:
    """-log p(x_t | z_t, A_t): pixels are N(x̂, σ²/w), w the precision that attention gives them."""
    maps, size = given.output.attention.fused, given.frames.shape[-1]
    precision = pixel_precision(maps, size, given.model.config.attention.precision)
    weighted = (precision * given.squared_error).mean(dim=(2, 3))
    log_precision = precision.log().mean(dim=(2, 3))
    return frame_nats(weighted, given.valid, given.frames[0, 0].numel(), log_precision)


def kl_z(given: Pass) -> Scalar:
    """KL(q ‖ p) at the sample of q."""
    output = given.output
    return clamped_kl(output.posterior, output.prior.mixture, output.latents, given.valid)


def kl_attention(given: Pass) -> Scalar | None:
    """KL(A_t ‖ P_t) + KL(sg U_t ‖ P_t), see `attention_kl`; None where attention is uniform."""
    if not given.model.attention.attends:
        return None
    return masked_mean(attention_kl(given.output.attention), given.valid)


def gram(given: Pass) -> Scalar:
    """The textures' distance, on a few frames."""
    return texture_nats(given.model, given.output.reconstructions, given.frames, given.valid)


TERMS: Mapping[str, Callable[[Pass], Scalar | None]] = {
    "reconstruction": reconstruction,
    "kl_z": kl_z,
    "kl_attention": kl_attention,
    "gram": gram,
    **latents.of(lambda given: given.seen, latents.ELBO_TERMS),
}
"""The terms by the names of `ElboWeights`."""


def attention_kl(attention: Attention) -> Float[Tensor, "B T"]:
    """KL(A_t ‖ P_t) + KL(sg U_t ‖ P_t) in nats, the first with half of its gradient to P_t and to A_t.

    The first keeps A_t near what could be expected. The second makes P_t predict the bottom-up map, of which A_t may
    hold little.
    """
    to_prior = map_kl(attention.fused.detach(), attention.prior)
    to_posterior = map_kl(attention.fused, attention.prior.detach())
    gradient = 0.5 * to_prior + 0.5 * to_posterior
    return with_gradient_of(to_prior, gradient) + map_kl(attention.bottom_up.detach(), attention.prior)


def pixel_precision(maps: Float[Tensor, "B T h w"], size: int, share: float) -> Float[Tensor, "B T size size"]:
    """1 - ρ + ρ·A over the pixels of a frame, A with mean 1, without gradient, ρ = `share`.

    With one, the model would lower its loss by looking away from what it cannot draw.
    """
    relative = maps.detach() * maps.shape[-2] * maps.shape[-1]
    fine = F.interpolate(relative, (size, size), mode="nearest")
    return 1 - share + share * fine


def texture_nats(
    model: AIME,
    reconstructions: Float[Tensor, "B T 3 H W"],
    frames: Float[Tensor, "B T 3 H W"],
    valid: Bool[Tensor, "B T"],
) -> Float[Tensor, ""]:
    """Half the squared distance of the Gram matrices, relative to the frames' own, times the values of a frame.

    It is 0.6 where every entry of the matrix is 1 % off in a frame of 12288 values. The features are the encoder's
    finest, normalised over each frame. Only the reconstructions get a gradient: the encoder would learn features whose
    textures are easy to match.

    Reference: Gatys et al. 2016, CVPR, equation 4, with the encoder in place of their VGG.
    """
    drawn = draw_valid_first(valid.flatten(), TEXTURE_FRAMES)
    with frozen(model.encoder):
        fake, real = (_features(model, each.flatten(0, 1)[drawn]) for each in (reconstructions, frames))
    size = 0.25 * gram_matrix(real).square().sum(dim=(1, 2))
    relative = gram_loss(fake, real) / size.clamp_min(1e-8)
    return masked_mean(0.5 * frames[0, 0].numel() * relative[None], valid.flatten()[drawn][None])


def _features(model: AIME, frames: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
    return F.group_norm(model.encoder.finest(model.centre(frames[None])[0]), 1)
