"""An agent's networks: policies and a critic, which read the belief, the latent and the latent's last step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aime.dynamics.heads.action_schema import ActionReadout
from aime.dynamics.states import Widths
from aime.errors import AimeError, expect_sizes
from aime.primitives.belief_mlp import STEP_SCALE, BeliefMLP
from aime.primitives.boundary_layers import BoundaryLinear
from aime.primitives.distributions import CensoredGaussian, CensoredMixture, TwoHot
from aime.primitives.distributions.gaussian import bounded_std
from aime.primitives.distributions.precision import accurate
from aime.primitives.distributions.two_hot import even_bins

Belief = Float[Tensor, "... belief"]
Latent = Float[Tensor, "... latent"]
Behaviour = Callable[[Tensor, Tensor, Tensor], CensoredGaussian | CensoredMixture]
"""π(a_t | h_{t-1}, z_t, z_t - z_{t-1}): a policy, or the model's action schema."""
MIN_SCALE, MAX_SCALE = 0.1, 1.0
"""Bounds of the standard deviation of `Policy`, before its action is clipped to [-1, 1]."""
LARGEST_LOCATION = 2.0
"""Bound of the location of `Policy`: beyond ±1, so that the policy can be nearly certain of these."""
LARGEST_RETURN = 100.0
"""Upper end of a critic's bins until the data's rewards are known: a reward of 1 at every step, discounted by 0.99."""


@dataclass(frozen=True)
class PolicyConfig:
    """Sizes of an agent's networks."""

    hidden: int = 256
    """Width of the two hidden layers."""
    bins: int = 101
    """Bins of the critic's two-hot distribution, an odd number."""
    components: int = 5
    """Components of a cloned policy's mixture."""

    def __post_init__(self) -> None:
        """Refuse a number out of its range by an `AimeError`."""
        expect_sizes(self, "hidden", "components", of="policy")
        if self.bins < 3 or self.bins % 2 == 0:
            raise AimeError(f"policy.bins is {self.bins}; expected an odd number from 3 on: one bin is 0")


class Trunk(nn.Module):
    """Two hidden layers on (h_{t-1}, z_t, z_t - z_{t-1}): actions depend on motion, which the belief keeps roughly."""

    def __init__(self, widths: Widths, hidden: int) -> None:
        super().__init__()
        self.readout = BeliefMLP(widths.belief, 2 * widths.latent, hidden)
        self.deepen = nn.Sequential(nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.SiLU())

    def forward(self, belief: Belief, latent: Latent, step: Latent) -> Float[Tensor, "... hidden"]:
        """Features `[...,hidden]`."""
        return self.deepen(self.readout(belief, latent, step / STEP_SCALE))


class Policy(nn.Module):
    """π(a_t | h_{t-1}, z_t, z_t - z_{t-1}), a censored Gaussian: the policy that learns in imagination."""

    least_noise = MIN_SCALE
    """Standard deviation of the noise to act with: the smallest that the policy has learned with."""

    def __init__(self, config: PolicyConfig, widths: Widths) -> None:
        super().__init__()
        self.trunk = Trunk(widths, config.hidden)
        self.project = BoundaryLinear(config.hidden, 2 * widths.action)
        nn.init.normal_(self.project.weight, std=0.01)
        nn.init.zeros_(self.project.bias)

    def forward(self, belief: Belief, latent: Latent, step: Latent) -> CensoredGaussian:
        """The distribution of the action `[...,A]` in [-1, 1]."""
        location, scale = accurate(self.project(self.trunk(belief, latent, step))).chunk(2, dim=-1)
        location = LARGEST_LOCATION * torch.tanh(location / LARGEST_LOCATION)
        return CensoredGaussian(location, bounded_std(scale, MIN_SCALE, MAX_SCALE))


class ClonedPolicy(nn.Module):
    """π(a_t | h_{t-1}, z_t, z_t - z_{t-1}), a mixture: several possible actions, as the cloned behaviour shows them."""

    least_noise = 0.0
    """A clone is as precise as the behaviour that it clones, and acts without noise."""

    def __init__(self, config: PolicyConfig, widths: Widths) -> None:
        super().__init__()
        self.readout = ActionReadout(config.hidden, config.components, widths.belief, 2 * widths.latent, widths.action)

    def forward(self, belief: Belief, latent: Latent, step: Latent) -> CensoredMixture:
        """The distribution of the action `[...,A]` in [-1, 1]."""
        return self.readout(belief, latent, step / STEP_SCALE)


class Critic(nn.Module):
    """The discounted return from (h_{t-1}, z_t, z_t - z_{t-1}) on, a two-hot distribution; 0 before any training.

    Its bins are evenly spaced up to the largest possible return. Bins spaced by symlog would lie 40 to 60 apart where
    differences of 1 tell actions apart.
    Reference: Hafner et al. 2023, DreamerV3, arXiv 2301.04104; even bins: Bellemare et al. 2017, arXiv 1707.06887.
    """

    largest: Float[Tensor, ""]
    """Upper end of the bins, in the environment's units; above 0."""

    def __init__(self, config: PolicyConfig, widths: Widths) -> None:
        super().__init__()
        self.trunk = Trunk(widths, config.hidden)
        self.logits = BoundaryLinear(config.hidden, config.bins)
        nn.init.zeros_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)
        self.register_buffer("largest", torch.tensor(LARGEST_RETURN))

    def forward(self, belief: Belief, latent: Latent, step: Latent) -> TwoHot:
        """The distribution of the return `[...]`, in the environment's units."""
        numbers = even_bins(self.logits.out_features, self.largest, self.largest.device)
        return TwoHot(self.logits(self.trunk(belief, latent, step)), numbers)
