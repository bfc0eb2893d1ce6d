"""Belief and latent to the robot's or simulator's own state."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aime.primitives.belief_mlp import STEP_SCALE, BeliefMLP
from aime.primitives.boundary_layers import BoundaryLinear
from aime.primitives.distributions import DiagonalGaussian
from aime.primitives.distributions.gaussian import bounded_std, raw_of_std
from aime.primitives.standardise import Standardise


class StateHead(nn.Module):
    """p(s_t | h_{t-1}, z_t, z_t - z_{t-1}): a Gaussian of each standardised number of the state."""

    def __init__(self, belief: int, latent: int, hidden: int, width: int, bounds: tuple[float, float]) -> None:
        """A head that at first is as unsure as the mean state would be.

        Args:
            belief: width of h.
            latent: width of z.
            hidden: width of the hidden layer.
            width: S, numbers in the state.
            bounds: least and greatest standard deviation, below and above 1, in units of each number's over the data.
        """
        super().__init__()
        self.bounds = bounds
        self.scale = Standardise(width)
        self.readout = BeliefMLP(belief, 2 * latent, hidden)
        self.project = BoundaryLinear(hidden, 2 * width)
        nn.init.constant_(self.project.bias[width:], raw_of_std(1.0, *bounds))

    def forward(
        self,
        belief: Float[Tensor, "... belief"],
        latent: Float[Tensor, "... latent"],
        step: Float[Tensor, "... latent"],
    ) -> DiagonalGaussian:
        """The distribution of the standardised state `[...,S]`."""
        with torch.autocast(belief.device.type, enabled=False):
            mean, std = self.project(self.readout(belief, latent, step / STEP_SCALE)).chunk(2, dim=-1)
        return DiagonalGaussian(mean, bounded_std(std, *self.bounds))

    def predict(
        self,
        belief: Float[Tensor, "... belief"],
        latent: Float[Tensor, "... latent"],
        step: Float[Tensor, "... latent"],
    ) -> Float[Tensor, "... S"]:
        """The mean, in the state's own units."""
        return self.scale.restore(self(belief, latent, step).mean)
