"""Gram matrices of features, which describe texture independently of position."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def gram_matrix(features: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C C"]:
    """G_ij = 1/(C·H·W) Σ_p f_i(p) f_j(p), in the square of the features' units.

    Computed in at least fp32, also under autocast: a bf16 sum over thousands of pixels has two significant digits.

    Reference: Gatys et al. 2016, "Image style transfer using convolutional neural networks", CVPR, equation 3, with
    the normalisation of equation 4 moved inside, so that maps of different sizes compare.
    """
    with torch.autocast(features.device.type, enabled=False):
        pixels = features.to(torch.promote_types(features.dtype, torch.float32)).flatten(2)
        # divide before the product: sums of large features would lose digits or overflow
        pixels = pixels / (pixels.shape[1] * pixels.shape[2]) ** 0.5
        return pixels @ pixels.mT


def gram_loss(features: Float[Tensor, "N C H W"], others: Float[Tensor, "N C h w"]) -> Float[Tensor, " N"]:
    """¼ Σ_ij (G_ij − A_ij)² of two images' Gram matrices, in the fourth power of the features' units.

    Zero if one image is a permutation of the other's pixels. Returned in fp32 (float64 if both inputs are).

    Reference: Gatys et al. 2016, CVPR, equation 4: E = 1/(4 N² M²) Σ_ij (G_ij − A_ij)² of C = N maps of H·W = M pixels.
    """
    return 0.25 * (gram_matrix(features) - gram_matrix(others)).square().sum(dim=(1, 2))
