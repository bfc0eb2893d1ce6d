"""What recorded episodes came to, from each of their frames on."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from aime.agents.experience import Experience


def followed(experience: Experience) -> Bool[Tensor, " N"]:
    """Whether the frame's episode goes on: all of its frames but the last."""
    return _numbers(experience.episode) < torch.bincount(experience.episode)[experience.episode] - 1


def largest_return(experience: Experience, discount: float) -> float:
    """What the largest reward on record, in size, would come to if it always came; more than 0.

    Always is for as long as the longest episode, where nothing is discounted.

    Args:
        experience: with rewards.
        discount: γ in [0, 1].
    """
    reward = (experience.targets.rewards * experience.targets.reward_valid).abs().max()
    steps = 1 / (1 - discount) if discount < 1 else float(torch.bincount(experience.episode).max())
    return max(float(reward) * steps, 1e-6)


def recorded_returns(
    experience: Experience, values: Float[Tensor, " N"], discount: float, trace: float
) -> Float[Tensor, " N"]:
    """R_t = r_{t+1} + γ c_{t+1} ((1-λ) V(s_{t+1}) + λ R_{t+1}) along the episodes, with V in place of the last R.

    Args:
        experience: the frames of an episode in the order of time; a reward that is not known counts 0.
        values: V of each frame, in the environment's units.
        discount: γ in [0, 1].
        trace: λ in [0, 1].

    Returns:
        The returns; of an episode's last frame its own value.

    Reference: Schulman et al. 2016, arXiv 1506.02438.
    """
    lengths = torch.bincount(experience.episode)
    place = _numbers(experience.episode), experience.episode
    grid = values.new_zeros(int(lengths.max()), len(lengths))
    reward, value, goes_on = (
        grid.index_put(place, field.to(values))
        for field in (
            experience.targets.rewards * experience.targets.reward_valid,
            values,
            ~experience.targets.terminated,
        )
    )
    returns = value.clone()
    for step in range(len(grid) - 2, -1, -1):
        arrived = step + 1
        following = discount * goes_on[arrived] * ((1 - trace) * value[arrived] + trace * returns[arrived])
        returns[step] = torch.where(arrived < lengths, reward[arrived] + following, returns[step])
    return returns[place]


def _numbers(episode: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """Of each frame within its episode, from 0, wherever the episode's other frames lie."""
    order = torch.argsort(episode, stable=True)
    lengths = torch.bincount(episode)
    first = lengths.cumsum(0) - lengths
    numbers = torch.empty_like(order)
    numbers[order] = torch.arange(len(order), device=order.device) - first[episode[order]]
    return numbers
