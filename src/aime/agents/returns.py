"""Returns along imagined paths, and the scale that makes advantages comparable between environments."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


def lambda_returns(
    rewards: Float[Tensor, "H N"],
    continues: Float[Tensor, "H N"],
    values: Float[Tensor, "H N"],
    discount: float,
    trace: float,
) -> Float[Tensor, "H N"]:
    """R_t = r_{t+1} + γ c_{t+1} ((1-λ) V(s_{t+1}) + λ R_{t+1}), with V in place of the last R.

    Args:
        rewards: on the arrivals 1 to H.
        continues: the probabilities that the arrivals did not end the episode, in [0, 1].
        values: V of the states arrived at.
        discount: γ in [0, 1].
        trace: λ in [0, 1].

    Reference: Schulman et al. 2016, arXiv 1506.02438; in this form Hafner et al. 2020, arXiv 1912.01603, equation 6.
    """
    following, returns = values[-1], []
    for reward, goes_on, value in zip(*(each.flip(0) for each in (rewards, continues, values)), strict=True):
        following = reward + discount * goes_on * ((1 - trace) * value + trace * following)
        returns.append(following)
    return torch.stack(returns).flip(0)


class AdvantageScale(nn.Module):
    """max(1, 95th less 5th percentile of the advantages), averaged over steps: by what they are divided.

    Of the advantages, and not of the returns: where returns differ far more from state to state than from action to
    action, advantages in units of the former are so small that entropy and divergence decide alone. The floor keeps
    small noise small where there is nothing to be had.
    Reference: Hafner et al. 2023, DreamerV3, arXiv 2301.04104, equation 7, which takes the returns.
    """

    low: Float[Tensor, ""]
    high: Float[Tensor, ""]

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("low", torch.tensor(float("nan")))
        self.register_buffer("high", torch.tensor(float("nan")))

    @torch.no_grad()
    def forward(self, advantages: Float[Tensor, "*N"]) -> Float[Tensor, ""]:
        """The scale after these advantages too, 1 or more, in the environment's units."""
        bounds = torch.quantile(advantages.flatten().float(), torch.tensor([0.05, 0.95], device=advantages.device))
        for buffer, bound in zip((self.low, self.high), bounds, strict=True):
            kept = torch.where(buffer.isnan(), bound, buffer)
            buffer.copy_(self.decay * kept + (1 - self.decay) * bound)
        return (self.high - self.low).clamp(min=1.0)
