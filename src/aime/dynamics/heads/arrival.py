"""Heads for the reward that comes with a frame, and for whether the episode continues."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aime.dynamics.heads.config import ControlConfig
from aime.primitives.belief_mlp import STEP_SCALE, BeliefMLP
from aime.primitives.boundary_layers import BoundaryLinear
from aime.primitives.distributions import TwoHot


class RewardHead(nn.Module):
    """p(reward | h_{t-1}, z_t, z_t - z_{t-1}) of the arrival at frame t; predicts 0 before training.

    Reference: Hafner et al. 2023, DreamerV3, arXiv 2301.04104.
    """

    def __init__(self, config: ControlConfig, belief: int, latent: int) -> None:
        super().__init__()
        self.readout = BeliefMLP(belief, 2 * latent, config.hidden)
        self.logits = BoundaryLinear(config.hidden, config.bins)
        nn.init.zeros_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)

    def forward(
        self,
        belief: Float[Tensor, "... belief"],
        latent: Float[Tensor, "... latent"],
        step: Float[Tensor, "... latent"],
    ) -> TwoHot:
        """The distribution of the reward, in the environment's units, `[...]`."""
        with torch.autocast(belief.device.type, enabled=False):
            return TwoHot(self.logits(self.readout(belief, latent, step / STEP_SCALE)))


class ContinuationHead(nn.Module):
    """p(the episode continues | h_{t-1}, z_t, z_t - z_{t-1}) after the arrival at frame t, as a logit."""

    def __init__(self, config: ControlConfig, belief: int, latent: int) -> None:
        super().__init__()
        self.readout = BeliefMLP(belief, 2 * latent, config.hidden)
        self.logit = BoundaryLinear(config.hidden, 1)

    def forward(
        self,
        belief: Float[Tensor, "... belief"],
        latent: Float[Tensor, "... latent"],
        step: Float[Tensor, "... latent"],
    ) -> Float[Tensor, "..."]:
        """The logit `[...]`; its sigmoid is the probability."""
        with torch.autocast(belief.device.type, enabled=False):
            return self.logit(self.readout(belief, latent, step / STEP_SCALE)).squeeze(-1)
