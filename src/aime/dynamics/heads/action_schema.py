"""The model of the agent's own behaviour: what it is about to do, and what it must have done."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aime.dynamics.heads.config import ControlConfig
from aime.primitives.belief_mlp import STEP_SCALE, BeliefMLP
from aime.primitives.boundary_layers import BoundaryLinear
from aime.primitives.distributions import CensoredGaussian, CensoredMixture
from aime.primitives.distributions.gaussian import bounded_std


class ActionReadout(nn.Module):
    """A belief and other vectors to a distribution of an action in [-1, 1]: several ways of going on."""

    def __init__(self, hidden: int, components: int, belief: int, others: int, action: int) -> None:
        super().__init__()
        self.components, self.action = components, action
        self.readout = BeliefMLP(belief, others, hidden)
        count = components
        self.sizes = (count, count * action, count * action)
        self.project = BoundaryLinear(hidden, sum(self.sizes))
        # the components start apart: equal ones would stay equal
        nn.init.normal_(self.project.bias[count : count + count * action], std=0.5)

    @property
    def noise_width(self) -> int:
        """How many uniform numbers `CensoredMixture.from_uniforms` takes."""
        return self.components + self.action

    def forward(self, belief: Float[Tensor, "... belief"], *others: Float[Tensor, "... width"]) -> CensoredMixture:
        """The distribution `[...,A]`."""
        with torch.autocast(belief.device.type, enabled=False):
            weights, locations, scales = self.project(self.readout(belief, *others)).split(self.sizes, dim=-1)
        grid = (self.components, self.action)
        scale = bounded_std(scales.unflatten(-1, grid), ControlConfig.min_scale, ControlConfig.max_scale)
        return CensoredMixture(weights.log_softmax(-1), CensoredGaussian(locations.unflatten(-1, grid), scale))


class ActionSchema(nn.Module):
    """p(a_t | h_{t-1}, z_t, z_t - z_{t-1}), and inverse dynamics p(a_t | h_{t-1}, z_t, z_{t+1}).

    As the attention schema predicts where the model will look, so this predicts what the agent will do: it clones
    behaviour, proposes to a planner, holds back offline learning, and acts where a prediction is given no actions.
    """

    def __init__(self, config: ControlConfig, belief: int, latent: int, action: int) -> None:
        super().__init__()
        self.next_action = ActionReadout(config.hidden, config.components, belief, 2 * latent, action)
        self.past_action = ActionReadout(config.hidden, config.components, belief, 2 * latent, action)

    def forward(
        self,
        belief: Float[Tensor, "... belief"],
        latent: Float[Tensor, "... latent"],
        step: Float[Tensor, "... latent"],
    ) -> CensoredMixture:
        """What will be done at frame t, from h_{t-1}, z_t and its last step."""
        return self.next_action(belief, latent, step / STEP_SCALE)

    def inverse(
        self,
        belief: Float[Tensor, "... belief"],
        latent: Float[Tensor, "... latent"],
        next_latent: Float[Tensor, "... latent"],
    ) -> CensoredMixture:
        """What was done at frame t, from h_{t-1}, z_t and z_{t+1}."""
        return self.past_action(belief, latent, (next_latent - latent) / STEP_SCALE)
