"""How wide the prior should be: fitted to clips that settling has not learned from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aime.primitives.distributions.gaussian import bounded_std, raw_of_std
from aime.primitives.ranks import average_over_ranks
from aime.world_model.model import AIME
from aime.world_model.outputs import LatentClips

SHIFTS = torch.arange(-40, 41) / 40
"""What is tried; at the ends a standard deviation is about three times as large, or as small."""


class SpreadFit(NamedTuple):
    """What `fit_spread` found."""

    shift: float
    """Added to the prior's `spread_bias`, in [-1, 1]; above 0 where it was too sure of itself."""
    nats_before: float
    """-log p(z) under the prior one step ahead, per frame, of the clips it was fitted to."""
    nats: float
    """The same after the fit."""


@torch.no_grad()
def fit_spread(model: AIME, clips: LatentClips) -> SpreadFit:
    """Shift the standard deviations of the prior, all by one number, to where the clips' latents are likeliest.

    Frames learned from for many passes are foretold better than any others, and what fits the errors on them is too
    narrow for new ones. One number is little to learn: a few episodes are enough for it. A clip's first latent, before
    which there is nothing, does not count. Where a figure is not finite nothing changes.

    Args:
        model: in eval mode; its prior changes in place. Of several ranks all must call, each with clips of its own.
        clips: of episodes that the prior has not learned from, one or more.
    """
    prior = model.follow(*clips[:3]).prior.mixture
    limits = model.config.prior.min_std, model.config.prior.max_std
    raw = raw_of_std(prior.stds, *limits)
    counted = clips.valid.clone()
    counted[:, 0] = False

    def total(shift: Tensor) -> Tensor:
        nats = -prior._replace(stds=bounded_std(raw + shift, *limits)).log_prob(clips.latents)
        return torch.where(counted, nats, 0).sum(dtype=torch.float64)

    shifts = SHIFTS.to(raw.device)
    sums = torch.stack([*map(total, shifts), counted.sum()])
    average_over_ranks([sums])
    nats = (sums[:-1] / sums[-1]).cpu()
    unchanged = len(SHIFTS) // 2
    best = int(nats.argmin()) if nats.isfinite().all() else unchanged
    model.prior.spread_bias.add_(SHIFTS[best])
    return SpreadFit(float(SHIFTS[best]), float(nats[unchanged]), float(nats[best]))
