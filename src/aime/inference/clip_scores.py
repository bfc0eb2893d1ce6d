"""The scores of single clips, before they are averaged."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from aime.inference.foreground import ForegroundCounts
from aime.inference.mask_scores import MaskErrors
from aime.inference.sharpness import Gradients
from aime.inference.state_reader import ReadErrors
from aime.inference.state_scores import StateErrors

BEST_OF = 8
"""Samples among which the best is sought."""


class ClipScores(NamedTuple):
    """The scores of B clips before they are averaged; `F` counts predicted frames, `T` all of them."""

    mse: Float[Tensor, "B F"]
    ssim: Float[Tensor, "B F"]
    mse_likeliest: Float[Tensor, "B F"]
    ssim_likeliest: Float[Tensor, "B F"]
    mse_best: Float[Tensor, "B F"]
    energy: Float[Tensor, "B F"]
    covered: Float[Tensor, "B F"]
    """NaN where there are too few samples for an interval, like the next two."""
    held: Float[Tensor, "B F"]
    uncertain: Float[Tensor, "B F"]
    persistence: Float[Tensor, "B F"]
    reconstruction: Float[Tensor, "B T"]
    """Mean squared errors, like the next."""
    mean_image: Float[Tensor, "B T"]
    ssim_reconstruction: Float[Tensor, "B T"]
    latent_surprise: Float[Tensor, "B T"]
    frame_bound: Float[Tensor, "B T"]
    """In nats."""
    prior_nll: Float[Tensor, "B F"]
    """-log p(z_t | past) of a sample of the posterior, in nats; the next is log q(z_t | x_t, c_t) of the same."""
    posterior_log: Float[Tensor, "B F"]
    kl_hierarchical: Float[Tensor, "B F"]
    weights: Float[Tensor, "B K"]
    """Mixture weights of the prior, averaged over frames."""
    codes: Float[Tensor, "B codes"]
    """How often each code was used."""
    state: StateErrors
    foreground: ForegroundCounts
    read: ReadErrors
    masks: MaskErrors
    gradients: Gradients
    body_gradients: Gradients
    """Over the body's pixels and their neighbours."""

    @property
    def mean_image_ahead(self) -> Float[Tensor, "B F"]:
        """The errors of the mean image in the predicted frames."""
        return self.mean_image[:, -self.mse.shape[1] :]
