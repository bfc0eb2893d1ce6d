"""Calibration of the prior's standard deviation on episodes that dynamics fine-tuning left out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from aime.dynamics.choices import sampled
from aime.dynamics.latent_dynamics import LatentDynamics
from aime.inference.metrics import energy_score
from aime.primitives.masked_mean import masked_mean
from aime.primitives.randomness import preserved_random_state
from aime.world_model.outputs import LatentClips

SHIFTS = torch.arange(-4, 9) / 8
"""Candidate shifts of `spread_bias`; 1 makes a standard deviation about three times as large."""
CONTEXT, SAMPLES = 5, 8


class SpreadFit(NamedTuple):
    """The result of `fit_spread`."""

    shift: float
    """Added to the prior's `spread_bias`, in [-0.5, 1]; positive if the prior was overconfident."""
    energy_before: float
    """Energy score of imagined latents, in units of the latents' standard deviation; 0 is best."""
    energy: float
    """Energy score after the fit."""


@torch.no_grad()
def fit_spread(dynamics: LatentDynamics, clips: LatentClips) -> SpreadFit:
    """Shift the prior's `spread_bias` by the number with the lowest energy score of imagined latents.

    A prior that has seen its training frames many times is overconfident on new frames. The score
    (`aime.inference.metrics.energy_score`) compares eight sampled futures with the clips, from the sixth frame to the
    end. If a score is not finite, the prior is unchanged.

    Args:
        dynamics: in eval mode; its prior changes in place. All ranks must call, each with its own clips.
        clips: one or more clips of at least two frames, from episodes that the prior was not trained on.
    """
    latents, contexts, actions = clips[:3]
    seen = min(CONTEXT, latents.shape[1] - 1)
    track = dynamics.scan(latents[:, :seen], contexts[:, :seen], actions[:, :seen])
    start = dynamics.states_at(track, -1).repeated(SAMPLES)
    future = repeat(actions[:, seen - 1 : -1], "b f a -> (b s) f a", s=SAMPLES)
    scale = latents[clips.valid].std(0).clamp_min(1e-6)
    bias = dynamics.prior.spread_bias
    unchanged = bias.clone()

    def energy(shift: Float[Tensor, ""]) -> Float[Tensor, ""]:
        bias.copy_(unchanged + shift)
        with preserved_random_state(dynamics.device, 0):
            dream = dynamics.behave(start, lambda _, number: future[:, number], future.shape[1], sampled)
        imagined = (dream.latents / scale).unflatten(0, (-1, SAMPLES))
        return masked_mean(energy_score(imagined, latents[:, seen:] / scale), clips.valid[:, seen:])

    scores = torch.stack([energy(shift) for shift in SHIFTS.to(bias.device)]).cpu()
    before = int((SHIFTS == 0).nonzero())
    best = int(scores.argmin()) if scores.isfinite().all() else before
    bias.copy_(unchanged + SHIFTS[best])
    return SpreadFit(float(SHIFTS[best]), float(scores[before]), float(scores[best]))
