"""How surprising frames are: the error of the predicted latent, and a bound on the likelihood of the pixels."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from aime.dynamics.states import Track
from aime.errors import AimeError
from aime.primitives.distributions import DiagonalGaussian
from aime.primitives.seeded_noise import Seeds, posterior_samples
from aime.world_model.checked_inputs import CheckedInputs
from aime.world_model.core import Actions, Frames, States, WorldModel
from aime.world_model.prediction import decode_in_chunks

STILL = 0.25
"""A squared step, in units of the prior's variance, that a world at rest may be off by."""


class Surprising(WorldModel):
    """A world model that scores how surprising frames are."""

    @torch.no_grad()
    def surprise(
        self,
        frames: Frames,
        actions: Actions | None = None,
        of: Literal["latent", "frame"] = "latent",
        samples: int = 8,
        seed: Seeds = 0,
        states: States | None = None,
        action_valid: Bool[Tensor, "B T"] | Bool[np.ndarray, "B T"] | None = None,
    ) -> Float[Tensor, "B T"]:
        """How surprising each frame is, given the frames and actions before it.

        Args:
            frames: `[B,T,3,H,W]`, uint8 or float in [0, 1].
            actions: `[B,T,A]` in [-1, 1]; the last one is unused. None for video without actions.
            of: "latent" for the error of the prior's mean relative to its usual size, no unit, 0 at no error; see
                `latent_surprise`. Motion is known from the third frame on.
                "frame" for an upper bound on -log p(x_t | past) in nats; see `frame_bound`.
            samples: of the bound, which is tighter with more; "latent" uses none.
            seed: of these samples; see `predict_future`.
            states: `[B,T,S]`, as in `forward_sequence`.
            action_valid: `[B,T]`, as in `forward_sequence`.

        Raises:
            AimeError: if frames, actions or states do not have the model's shape, type or range.
        """
        if of not in ("latent", "frame"):
            raise AimeError(f"surprise of {of!r}; expected 'latent' or 'frame'")
        if samples < 1:
            raise AimeError(f"samples is {samples}; expected 1 or more")
        with CheckedInputs(self) as checked:
            given = checked.frames(frames)
            shape = given.shape[:2]
            # nothing here reads the last action, and a recording has none
            known = checked.actions(actions, shape, action_valid, last_unused=True)
            seen = checked.states(states, shape)
            filtered = self.filter_sequence(given, known, None, seen)
            if of == "latent":
                return latent_surprise(filtered.track)
            return frame_bound(self, given, filtered.posterior, filtered.track, filtered.maps, samples, seed)


def latent_surprise(track: Track) -> Float[Tensor, "B T"]:
    """The squared error of the prior's mean, relative to its usual size at the speed at which the latents move.

        m_t = mean_d (z_t - μ_t)² / σ_t²,    l_t = mean_d (z_{t-1} - z_{t-2})² / σ_t²,    m_t / √(l_t + 1/4)

    with mean μ_t and variance σ_t² of the prior's mixture; D·m_t / 2 is the excess of a Gaussian's nats over its least.
    The error of a prior grows with motion, by about the square root of l_t, so that nats alone rank fast motion above
    wrong motion. The moments of the mixture are used because its rarest components give any latent some probability.
    """
    mixture = track.prior.mixture
    mean = mixture.mean
    variance = (mixture.weights[..., None] * (mixture.stds.square() + mixture.means.square())).sum(-2) - mean.square()
    error = ((track.latents - mean).square() / variance).mean(-1)
    last_step = torch.cat([torch.zeros_like(track.steps[:, :1]), track.steps[:, :-1]], dim=1)
    motion = (last_step.square() / variance).mean(-1)
    return error / (motion + STILL).sqrt()


def frame_bound(
    model: WorldModel,
    frames: Float[Tensor, "B T 3 H W"],
    posterior: DiagonalGaussian,
    track: Track,
    maps: Float[Tensor, "B T h w"],
    samples: int,
    seed: Seeds,
) -> Float[Tensor, "B T"]:
    """An upper bound, in expectation, on -log p(x_t | x_1..x_{t-1}, a_1..a_{t-1}) in nats.

        p(x_t | past) = ∫ p(z | h_{t-1}) N(x_t; decode(z, P_t(h_{t-1}, z, U_{t-1})), σ²) dz

    by S samples of the posterior, weighted by importance: -log 1/S Σ_s p(x_t | z_s, P_t) p(z_s | h_{t-1}) / q(z_s).
    Belief, prior and U_{t-1} depend on the frames before x_t alone. The proposal q depends on x_t, which changes the
    tightness of the bound and not what it bounds. Reference: Burda et al. 2016, arXiv 1509.00519, equation 8.
    """
    batch = frames.shape[0]
    truth, variance = frames.flatten(0, 1), model.decoder.variance
    scale = 0.5 * truth[0].numel() * torch.log(2 * math.pi * variance)
    prior, beliefs = track.prior, track.beliefs.flatten(0, 1)
    last_maps = torch.cat([model.attention.initial_map(batch)[:, None].to(maps), maps[:, :-1]], dim=1).flatten(0, 1)
    terms = []
    for latents in posterior_samples(posterior, seed, samples).unbind(1):
        flat = latents.flatten(0, 1)
        decoded = decode_in_chunks(model, flat, model.attention.expect(beliefs, flat.to(beliefs), last_maps).map)
        error = (decoded - truth).square().sum(dim=(1, 2, 3)) / (2 * variance)
        log_likelihood = rearrange(-error - scale, "(b t) -> b t", b=batch)
        terms.append(log_likelihood + prior.mixture.log_prob(latents) - posterior.log_prob(latents))
    return math.log(samples) - torch.logsumexp(torch.stack(terms), dim=0)
