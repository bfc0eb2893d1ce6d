"""Overshooting: several steps imagined from real states, and the true latents."""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from aime.dynamics.choices import Choice
from aime.dynamics.latent_dynamics import LatentDynamics
from aime.dynamics.states import Track
from aime.primitives.distributions import GaussianMixture


class Overshot(NamedTuple):
    """Imagined paths of N starts over K steps, and the true latents."""

    beliefs: Float[Tensor, "N K belief"]
    latents: Float[Tensor, "N K latent"]
    priors: GaussianMixture
    """Of each latent, before it was chosen: `[N,K,components]` and `[N,K,components,latent]`."""
    targets: Float[Tensor, "N K latent"]
    """The posterior's latents, without gradient."""
    starts: Int[Tensor, " S"]
    """Index of the frame that each path of a clip starts from; N = B·S, clip by clip."""
    times: Int[Tensor, "N K"]
    """Index of the frame that each step should show, into the B·T frames of the clips."""
    valid: Bool[Tensor, "N K"]


def imagine_ahead(
    dynamics: LatentDynamics, track: Track, valid: Bool[Tensor, "B T"], most_steps: int, most_starts: int
) -> Overshot:
    """Imagine K steps from S starts of every clip at once, fewer where the clips are short.

    At each step the path takes the mean of the component most responsible for the true latent. A step has a gradient to
    the belief alone: one to all steps before is mostly noise. So the path is found first, without gradient, and all its
    steps are then repeated at once.
    Reference: Hafner et al. 2019, PlaNet, arXiv 1811.04551, equation 7.
    """
    batch, length = valid.shape
    clips = torch.arange(batch, device=valid.device)[:, None, None]
    steps = min(most_steps, length - 1)
    starts = _starts(length - steps, most_starts, valid.device)
    ahead = starts[:, None] + torch.arange(1, steps + 1, device=valid.device)
    targets = rearrange(track.latents[:, ahead], "b s k d -> (b s) k d")
    carry = dynamics.states_at(track, starts).map(lambda each: each.flatten(0, 1))
    actions = rearrange(track.actions[:, ahead - 1], "b s k a -> (b s) k a")

    def choose(mixture: GaussianMixture, number: int) -> Choice:
        return _most_responsible(mixture, targets[:, number])

    with torch.no_grad():
        path = [carry]
        for number in range(steps - 1):
            path.append(dynamics.step(path[-1], actions[:, number], choose, number)[0])
    beliefs, prior = dynamics.repeat(path, actions)
    return Overshot(
        beliefs,
        _most_responsible(prior.mixture, targets).latent,
        prior.mixture,
        targets,
        starts,
        rearrange(clips * length + ahead, "b s k -> (b s) k"),
        rearrange(valid[:, starts, None] & valid[:, ahead], "b s k -> (b s) k"),
    )


def _most_responsible(mixture: GaussianMixture, targets: Float[Tensor, "... latent"]) -> Choice:
    """The mean of the component most responsible for each true latent."""
    component = mixture.responsibilities(targets).argmax(-1)
    return Choice(mixture.pick(component).mean, component)


def _starts(possible: int, wanted: int, device: torch.device) -> Tensor:
    count = min(possible, wanted)
    offset = torch.rand(1, device=device)
    return ((torch.arange(count, device=device) + offset) * possible / count).long()
