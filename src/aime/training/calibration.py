"""How wide the prior should be: fitted to how dreams of clips go that the dynamics were not fine-tuned on."""

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
"""What is tried; 1 makes a standard deviation about three times as large."""
CONTEXT, SAMPLES = 5, 8


class SpreadFit(NamedTuple):
    """What `fit_spread` found."""

    shift: float
    """Added to the prior's `spread_bias`, in [-0.5, 1]; above 0 where it was too sure of itself."""
    energy_before: float
    """The energy score of imagined latents, in units of their spread over the clips; 0 is best."""
    energy: float
    """The same after the fit."""


@torch.no_grad()
def fit_spread(dynamics: LatentDynamics, clips: LatentClips) -> SpreadFit:
    """Shift the standard deviations of the prior, all by one number, to where imagined futures are most like the real.

    Frames learned from for many passes are predicted better than any others, and what fits the errors on them is too
    narrow for new ones, the more so the further ahead. So the number is the one with the least energy score
    (`aime.inference.metrics.energy_score`) of eight futures' latents after five frames, to the clips' ends. One number
    is little to learn: a few episodes are enough for it. Where a figure is not finite nothing changes.

    Args:
        dynamics: in eval mode; its prior changes in place. Of several ranks all must call, each with clips of its own.
        clips: of episodes that the prior has not learned from, one or more of at least two frames.
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
