"""Acting and judging: a policy and a critic on belief, latent and its last step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aime.dynamics.heads.action_schema import ActionReadout
from aime.dynamics.heads.config import ControlConfig
from aime.primitives.distributions import CensoredGaussian, CensoredMixture, TwoHot
from aime.primitives.distributions.gaussian import bounded_std
from aime.primitives.distributions.precision import accurate
from aime.primitives.distributions.two_hot import even_bins
from aime.primitives.ends import EndLinear
from aime.primitives.readout import STEP_SCALE, BeliefReadout

REACH = 2.0
"""Largest location of a policy's action before clipping: beyond the bound, so that it can be all but certain of it."""

LARGEST_RETURN = 100.0
"""Of a critic that has not been told what rewards there are: a reward of 1 for ever, discounted by 0.99."""


@dataclass(frozen=True)
class PolicyConfig:
    """Sizes of an agent's networks.

    Raises:
        AimeError: if a size is below 1, or `bins` is even or below 3.
    """

    hidden: int = 256
    """Width of each of two hidden layers."""
    bins: int = 101
    """Of the critic's two-hot distribution, an odd number."""
    components: int = 5
    """Of the mixture that a cloned policy is."""
    min_scale: ClassVar[float] = 0.1
    """Smallest standard deviation of an action before clipping: of a policy that learns by trying."""
    max_scale: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        ControlConfig("heads", self.hidden, self.bins, self.components)

    @property
    def cloning(self) -> ControlConfig:
        """Of a cloned policy, which may be as sure as the behaviour that it clones."""
        return ControlConfig(hidden=self.hidden, components=self.components)


class Trunk(nn.Module):
    """Two hidden layers on (h_{t-1}, z_t, z_t - z_{t-1}).

    A belief keeps the last latent only roughly, and what to do depends on how things move as much as on where they are.
    """

    def __init__(self, belief: int, latent: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.readout = BeliefReadout(belief, 2 * latent, hidden, dropout)
        self.deepen = nn.Sequential(nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.SiLU(), nn.Dropout(dropout))

    def forward(
        self,
        belief: Float[Tensor, "... belief"],
        latent: Float[Tensor, "... latent"],
        step: Float[Tensor, "... latent"],
    ) -> Float[Tensor, "... hidden"]:
        """Features `[...,hidden]`."""
        return self.deepen(self.readout(belief, latent, step / STEP_SCALE))


class Policy(nn.Module):
    """π(a_t | h_{t-1}, z_t, z_t - z_{t-1}), a censored Gaussian: one way to go on, found by trying."""

    def __init__(self, config: PolicyConfig, belief: int, latent: int, action: int) -> None:
        super().__init__()
        self.config = config
        self.trunk = Trunk(belief, latent, config.hidden)
        self.project = EndLinear(config.hidden, 2 * action)
        nn.init.normal_(self.project.weight, std=0.01)
        nn.init.zeros_(self.project.bias)

    @property
    def least_noise(self) -> float:
        """To act under: the smallest standard deviation that it has learned with; without, it falls into rhythms."""
        return self.config.min_scale

    def forward(
        self,
        belief: Float[Tensor, "... belief"],
        latent: Float[Tensor, "... latent"],
        step: Float[Tensor, "... latent"],
    ) -> CensoredGaussian:
        """The distribution of the action `[...,A]` in [-1, 1]."""
        location, scale = accurate(self.project(self.trunk(belief, latent, step))).chunk(2, dim=-1)
        scale = bounded_std(scale, self.config.min_scale, self.config.max_scale)
        return CensoredGaussian(REACH * torch.tanh(location / REACH), scale)


class ClonedPolicy(nn.Module):
    """π(a_t | h_{t-1}, z_t, z_t - z_{t-1}), a mixture: as many ways to go on as the behaviour shows that it clones."""

    def __init__(self, config: PolicyConfig, belief: int, latent: int, action: int) -> None:
        super().__init__()
        self.readout = ActionReadout(config.cloning, belief, 2 * latent, action)

    @property
    def least_noise(self) -> float:
        """To act under: none, a clone is as sure as what it clones."""
        return 0.0

    def forward(
        self,
        belief: Float[Tensor, "... belief"],
        latent: Float[Tensor, "... latent"],
        step: Float[Tensor, "... latent"],
    ) -> CensoredMixture:
        """The distribution of the action `[...,A]` in [-1, 1]."""
        return self.readout(belief, latent, step / STEP_SCALE)


class Critic(nn.Module):
    """The discounted return from (h_{t-1}, z_t, z_t - z_{t-1}) on, two-hot; 0 before it has learned anything.

    Its bins lie evenly up to the largest return that there can be: those that symlog spaces would be 80, 120 and 180,
    where differences of 1 tell actions apart.
    Reference: Hafner et al. 2023, DreamerV3, arXiv 2301.04104; even bins: Bellemare et al. 2017, arXiv 1707.06887.
    """

    largest: Float[Tensor, ""]
    """Of the bins, in the environment's units; above 0."""

    def __init__(self, config: PolicyConfig, belief: int, latent: int) -> None:
        super().__init__()
        self.trunk = Trunk(belief, latent, config.hidden)
        self.logits = EndLinear(config.hidden, config.bins)
        nn.init.zeros_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)
        self.register_buffer("largest", torch.tensor(LARGEST_RETURN))

    def forward(
        self,
        belief: Float[Tensor, "... belief"],
        latent: Float[Tensor, "... latent"],
        step: Float[Tensor, "... latent"],
    ) -> TwoHot:
        """The distribution of the return, in the environment's units, `[...]`."""
        numbers = even_bins(self.logits.out_features, self.largest, self.largest.device)
        return TwoHot(self.logits(self.trunk(belief, latent, step)), numbers)
