"""Latent augmentation: shift the static component of a clip's latents towards that of another clip."""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

STATIC_RATIO = 1.5
"""Ratio of between-clip to within-clip variance at which a direction has weight ½."""


class AugmentedLatents(NamedTuple):
    """The latents of a batch, some clips shifted."""

    latents: Float[Tensor, "B T latent"]
    shifted: Bool[Tensor, " B"]
    """True for shifted clips; their recorded rewards and states no longer apply."""


def static_projection(
    means: Float[Tensor, "N T latent"], stds: Float[Tensor, "N T latent"], valid: Bool[Tensor, "N T"]
) -> Float[Tensor, "latent latent"]:
    """The matrix P that projects a difference d of latents (a row vector) on directions that are static within clips.

    Directions v solve S_b v = λ S_w v (Fisher 1936, linear discriminants), where S_b is the covariance of clip means
    and S_w is the covariance around them plus the posterior variance. Each direction has weight λ⁴ / (λ⁴ + 1.5⁴).

    Args:
        means: posterior means.
        stds: posterior standard deviations, above 0.
        valid: False on padding; P is zero if all frames are padding.
    """
    nonempty = valid.any(1)
    if not nonempty.any():
        return torch.zeros(2 * means.shape[-1:], device=means.device)
    means, stds, weights = means[nonempty].double(), stds[nonempty].double(), valid[nonempty].double()[..., None]
    total = weights.sum()
    centres = _mean_over_time(means, weights)
    within = rearrange((means - centres) * weights, "n t d -> (n t) d")
    noise = (stds.square() * weights).sum((0, 1)) / total
    scatter = within.mT @ within / total + noise.diag()
    between = centres[:, 0] - centres[:, 0].mean(0)
    lower = torch.linalg.cholesky(scatter)
    whitened = torch.linalg.solve_triangular(lower, (between.mT @ between / len(between)), upper=False)
    ratios, axes = torch.linalg.eigh(torch.linalg.solve_triangular(lower, whitened.mT, upper=False))
    ratios = ratios.clamp_min(0) ** 4
    weighted = (axes * (ratios / (ratios + STATIC_RATIO**4))) @ axes.mT @ lower.mT
    return torch.linalg.solve_triangular(lower.mT, weighted, upper=True).to(torch.float32)


def shift_static_latents(
    latents: Float[Tensor, "B T latent"],
    valid: Bool[Tensor, "B T"],
    projection: Float[Tensor, "latent latent"],
    share: float,
) -> AugmentedLatents:
    """Shift a share of the clips, each by one vector, towards the static component of another clip of the batch.

    Args:
        latents: of the batch.
        valid: False on padding.
        projection: from `static_projection`.
        share: expected share of shifted clips, in [0, 1]; the fraction of the way is uniform in [0, 1).
    """
    batch, device = len(latents), latents.device
    centres = _mean_over_time(latents, valid[..., None].to(latents.dtype))
    order = torch.randperm(batch, device=device)
    others = centres[order]
    # a clip that is all padding has no static component
    shifted = (torch.rand(batch, device=device) < share) & valid.any(1)[order]
    fraction = torch.rand(batch, device=device) * shifted
    shift = fraction[:, None, None] * ((others - centres) @ projection.to(latents.dtype))
    return AugmentedLatents(latents + shift, shifted)


def _mean_over_time(values: Float[Tensor, "B T D"], weights: Float[Tensor, "B T 1"]) -> Float[Tensor, "B 1 D"]:
    return (values * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp_min(1)
