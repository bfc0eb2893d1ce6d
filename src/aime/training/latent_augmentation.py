"""Scenes that the data does not hold: what stands still in a clip moves to where it stands in another, as latents."""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

STILL_RATIO = 1.5
"""Where a direction counts half: the variance of the clips' means over that within clips."""


class Moved(NamedTuple):
    """Clips of which some are in another scene."""

    latents: Float[Tensor, "B T latent"]
    rows: Bool[Tensor, " B"]
    """Which; what else is recorded of these clips, such as rewards, is another scene's."""


def still_part(
    means: Float[Tensor, "N T latent"], stds: Float[Tensor, "N T latent"], valid: Bool[Tensor, "N T"]
) -> Float[Tensor, "latent latent"]:
    """The matrix P that takes a difference d of latents, a row, to the part d P in what stands still within clips.

    Of the directions v that solve S_b v = λ S_w v (Fisher 1936, linear discriminants), S_b the covariance of the clips'
    means and S_w that of the latents around them with the posterior's own variance, each counts by λ⁴ / (λ⁴ + 1.5⁴):
    next to nothing where latents move as much within a clip as from clip to clip.

    Args:
        means: of the posterior.
        stds: likewise, more than 0.
        valid: False on padding; nothing stands still where all is.
    """
    seen = valid.any(1)
    if not seen.any():
        return torch.zeros(2 * means.shape[-1:], device=means.device)
    means, stds, weights = means[seen].double(), stds[seen].double(), valid[seen].double()[..., None]
    total = weights.sum()
    centres = _mean_over_time(means, weights)
    within = rearrange((means - centres) * weights, "n t d -> (n t) d")
    noise = (stds.square() * weights).sum((0, 1)) / total
    scatter = within.mT @ within / total + noise.diag()
    apart = centres[:, 0] - centres[:, 0].mean(0)
    lower = torch.linalg.cholesky(scatter)
    whitened = torch.linalg.solve_triangular(lower, (apart.mT @ apart / len(apart)), upper=False)
    ratios, axes = torch.linalg.eigh(torch.linalg.solve_triangular(lower, whitened.mT, upper=False))
    ratios = ratios.clamp_min(0) ** 4
    kept = (axes * (ratios / (ratios + STILL_RATIO**4))) @ axes.mT @ lower.mT
    return torch.linalg.solve_triangular(lower.mT, kept, upper=True).to(torch.float32)


def in_other_scenes(
    latents: Float[Tensor, "B T latent"],
    valid: Bool[Tensor, "B T"],
    still: Float[Tensor, "latent latent"],
    share: float,
) -> Moved:
    """Move a share of clips by one vector each, some way towards what stands still in another clip of the batch.

    Args:
        latents: of clips in any order.
        valid: False on padding.
        still: from `still_part`.
        share: of the clips that move, in [0, 1], on average; how far is uniform from nothing to all the way.
    """
    batch, device = len(latents), latents.device
    centres = _mean_over_time(latents, valid[..., None].to(latents.dtype))
    order = torch.randperm(batch, device=device)
    others = centres[order]
    # what is padding throughout stands nowhere
    rows = (torch.rand(batch, device=device) < share) & valid.any(1)[order]
    way = torch.rand(batch, device=device) * rows
    return Moved(latents + way[:, None, None] * ((others - centres) @ still.to(latents.dtype)), rows)


def _mean_over_time(values: Float[Tensor, "B T D"], weights: Float[Tensor, "B T 1"]) -> Float[Tensor, "B 1 D"]:
    return (values * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp_min(1)
