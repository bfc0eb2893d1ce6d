"""A prior of one Gaussian, the usual choice of world models: the mixture's baseline behind the same interface."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aime.dynamics.prior import DirichletProcessMixture, PriorConfig
from aime.primitives.belief_mlp import STEP_SCALE, BeliefMLP
from aime.primitives.boundary_layers import BoundaryLinear
from aime.primitives.distributions import GammaPosterior, GaussianMixture, Kumaraswamy
from aime.primitives.distributions.gaussian import bounded_std, raw_of_std


class SingleGaussianPrior(nn.Module):
    """p(z_t | h_{t-1}, z_{t-1}, z_{t-2}, expected context) = N(μ, σ²): one component, without sticks to pay for.

    The mean is that of the mixture (`DirichletProcessPrior`) without a component's own step, from the same hidden
    layer: μ = z_{t-1} + s (m + W [h, z_{t-1}, (z_{t-1} - z_{t-2})/s]), s = 0.2. Of the configuration, `components`
    and `mean_spread` are unused.
    """

    def __init__(self, config: PriorConfig, belief: int, context: int, latent: int) -> None:
        super().__init__()
        self.config = config
        self.trunk = BeliefMLP(belief, 2 * latent + context, config.hidden, config.dropout, config.residuals)
        self.head = BoundaryLinear(config.hidden, 2 * latent)
        self.linear_step = BoundaryLinear(belief + 2 * latent, latent, bias=False)
        nn.init.normal_(self.head.weight, std=0.1 / math.sqrt(config.hidden))
        nn.init.zeros_(self.head.bias)
        nn.init.zeros_(self.linear_step.weight)
        with torch.no_grad():
            self.spread_bias.fill_(raw_of_std(config.start_std, config.min_std, config.max_std))

    @property
    def spread_bias(self) -> Float[Tensor, " latent"]:
        """A view of the standard deviation's bias, before it is bounded."""
        return self.head.bias.chunk(2)[1]

    @property
    def noise_width(self) -> int:
        """How many uniform numbers `from_uniforms` takes of its mixtures."""
        return 1 + self.linear_step.out_features

    def forward(
        self,
        belief: Float[Tensor, "... belief"],
        last_latent: Float[Tensor, "... latent"],
        last_step: Float[Tensor, "... latent"],
        expected_context: Float[Tensor, "... context"],
    ) -> DirichletProcessMixture:
        """The prior after `belief`, K = 1: no sticks, and q(α) equal to its prior, so that both cost nothing.

        Args:
            belief: h_{t-1}, `[...,belief]`.
            last_latent: z_{t-1}, `[...,latent]`.
            last_step: z_{t-1} - z_{t-2}, `[...,latent]`.
            expected_context: `[...,context]`, what the belief expects; never the context that has seen frame t.
        """
        joined = self.trunk.join(belief, last_latent, last_step / STEP_SCALE, expected_context)
        raw = self.head(self.trunk.hidden(joined)).to(torch.promote_types(torch.float32, belief.dtype))
        step, spread = raw.chunk(2, dim=-1)
        step = step + self.linear_step(joined[..., : self.linear_step.in_features])
        nothing = raw.new_zeros(raw.shape[:-1])
        mixture = GaussianMixture(
            nothing[..., None],
            (last_latent + STEP_SCALE * step)[..., None, :],
            bounded_std(spread, self.config.min_std, self.config.max_std)[..., None, :],
        )
        no_sticks = raw.new_zeros(*raw.shape[:-1], 0)
        return DirichletProcessMixture(mixture, Kumaraswamy(no_sticks, no_sticks), GammaPosterior(nothing, nothing))

    def lazy(self) -> Callable[..., GaussianMixture]:
        """The prior's mixtures for imagination: there is no component to leave out."""
        return lambda *read: self(*read).mixture
