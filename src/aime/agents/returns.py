"""λ-returns along imagined and recorded paths, and the scale of their advantages."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from aime.agents.experience import Experience


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


def recorded_returns(
    experience: Experience, values: Float[Tensor, " N"], discount: float, trace: float
) -> Float[Tensor, " N"]:
    """The λ-returns of recorded frames in the order of time, each along its own episode; the last frame's is its value.

    An unknown reward counts as 0.
    """
    numbers, lengths = _numbers(experience.episode), torch.bincount(experience.episode)
    # episodes are aligned at their ends, where all of them have a value
    place = numbers + lengths.max() - lengths[experience.episode], experience.episode
    targets = experience.targets
    fields = targets.rewards * targets.reward_valid, ~targets.terminated, values
    grid = values.new_zeros(int(lengths.max()), len(lengths))
    reward, goes_on, value = (grid.index_put(place, field.to(values)) for field in fields)
    # the first arrival of a grid has no frame before it
    returns = lambda_returns(reward, goes_on, value, discount, trace)[1:]
    return torch.cat([returns, value[-1:]])[place]


def followed(experience: Experience) -> Bool[Tensor, " N"]:
    """Whether a frame has a next one in its episode."""
    return _numbers(experience.episode) < torch.bincount(experience.episode)[experience.episode] - 1


def largest_return(experience: Experience, discount: float) -> float:
    """The return of the largest recorded reward, in size, if it came at every step; more than 0.

    Without discount, the steps are those of the longest episode.
    """
    reward = (experience.targets.rewards * experience.targets.reward_valid).abs().max()
    steps = 1 / (1 - discount) if discount < 1 else float(torch.bincount(experience.episode).max())
    return max(float(reward) * steps, 1e-6)


def _numbers(episode: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """The place of each frame within its episode, from 0; frames of different episodes may alternate."""
    order = torch.argsort(episode, stable=True)
    lengths = torch.bincount(episode)
    first = lengths.cumsum(0) - lengths
    numbers = torch.empty_like(order)
    numbers[order] = torch.arange(len(order), device=order.device) - first[episode[order]]
    return numbers


class AdvantageScale:
    """max(1, 95th minus 5th percentile of the advantages), averaged over steps: the divisor of the advantages.

    The percentiles are of advantages rather than of returns: where returns differ far more between states than between
    actions, advantages in units of the returns are so small that entropy and divergence decide alone. The lower bound
    of 1 keeps noise small where no action is better than another.
    Reference: Hafner et al. 2023, DreamerV3, arXiv 2301.04104, equation 7, which takes the returns.
    """

    def __init__(self, decay: float = 0.99) -> None:
        self.decay = decay
        self._bounds: Float[Tensor, " 2"] | None = None

    @torch.no_grad()
    def __call__(self, advantages: Float[Tensor, "*N"]) -> Float[Tensor, ""]:
        """The scale after these advantages too, 1 or more, in the environment's units."""
        bounds = torch.quantile(advantages.flatten().float(), torch.tensor([0.05, 0.95], device=advantages.device))
        last = bounds if self._bounds is None else self._bounds
        self._bounds = self.decay * last + (1 - self.decay) * bounds
        return (self._bounds[1] - self._bounds[0]).clamp(min=1.0)
