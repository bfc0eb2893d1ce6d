"""A prior of one Gaussian, the usual choice of world models: the mixture's baseline behind the same interface."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aime.errors import AimeError
from aime.primitives.distributions import GammaPosterior, GaussianMixture, Kumaraswamy
from aime.primitives.distributions.gaussian import bounded_std, raw_of_std
from aime.primitives.readout import STEP_SCALE, BeliefReadout
from aime.representation.prior import DirichletProcessMixture


@dataclass(frozen=True)
class SingleGaussianPriorConfig:
    """Sizes of the single Gaussian prior.

    Raises:
        AimeError: if `hidden` is below 1, or not 0 < min_std < start_std < max_std.
    """

    hidden: int = 256
    """Width of the hidden layer that mean and std are read from."""
    min_std: float = 0.03
    """Smallest standard deviation, in units of the latent."""
    max_std: float = 3.0
    start_std: float = 0.2
    """Standard deviation at the start of training."""

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise AimeError(f"prior.hidden is {self.hidden}; expected 1 or more: give a positive size")
        if not 0 < self.min_std < self.start_std < self.max_std:
            raise AimeError(
                f"prior.min_std, start_std and max_std are {self.min_std}, {self.start_std} and {self.max_std}; "
                "expected 0 < min_std < start_std < max_std: put them in order"
            )


class SingleGaussianPrior(nn.Module):
    """p(z_t | h_{t-1}, z_{t-1}, expected context) = N(z_{t-1} + s m, σ²): one component, without sticks to pay for."""

    def __init__(self, config: SingleGaussianPriorConfig, belief: int, context: int, latent: int) -> None:
        super().__init__()
        self.config = config
        self.trunk = BeliefReadout(belief, 2 * latent + context, config.hidden)
        self.head = nn.Linear(config.hidden, 2 * latent)
        nn.init.normal_(self.head.weight, std=0.1 / math.sqrt(config.hidden))
        nn.init.zeros_(self.head.bias)
        self.head.bias.data[latent:] = raw_of_std(config.start_std, config.min_std, config.max_std)

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
        raw = self.head(self.trunk(belief, last_latent, last_step, expected_context))
        raw = raw.to(torch.promote_types(torch.float32, belief.dtype))
        step, std = raw[..., None, :].chunk(2, dim=-1)
        nothing = raw.new_zeros(raw.shape[:-1])
        mixture = GaussianMixture(
            nothing[..., None],
            last_latent[..., None, :] + STEP_SCALE * step,
            bounded_std(std, self.config.min_std, self.config.max_std),
        )
        no_sticks = raw.new_zeros(*raw.shape[:-1], 0)
        return DirichletProcessMixture(mixture, Kumaraswamy(no_sticks, no_sticks), GammaPosterior(nothing, nothing))
