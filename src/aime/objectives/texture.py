"""The Gram loss: the distance of textures, as statistics of the encoder's features."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from aime.primitives.draws import draw_valid_first
from aime.primitives.frozen import frozen
from aime.primitives.gram import gram_loss, gram_matrix
from aime.primitives.masked_mean import masked_mean
from aime.world_model.model import AIME

JUDGED = 16
"""Frames of a batch whose textures are compared in a step, drawn at random."""


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
    drawn = draw_valid_first(valid.flatten(), JUDGED)
    with frozen(model.encoder):
        dreamt, real = (_features(model, each.flatten(0, 1)[drawn]) for each in (reconstructions, frames))
    size = 0.25 * gram_matrix(real).square().sum(dim=(1, 2))
    relative = gram_loss(dreamt, real) / size.clamp_min(1e-8)
    return masked_mean(0.5 * frames[0, 0].numel() * relative[None], valid.flatten()[drawn][None])


def _features(model: AIME, frames: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
    return F.group_norm(model.encoder.finest(model.centre(frames[None])[0]), 1)
