"""Episodes in environments, several at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from aime.agents.agent import EpisodeNoise
from aime.io.collect import Environment
from aime.io.collect.environment import Arrival


class Player(Protocol):
    """Acts in B episodes: an `Agent`, or `Scripted`."""

    def reset(self, batch: int, seeds: Sequence[int] | None = None) -> None:
        """Begin `batch` episodes with these seeds."""

    def act(
        self, observation: UInt8[Tensor, "B 3 H W"], states: Float[Tensor, "B S"] | None = None
    ) -> Float[Tensor, "B A"]:
        """Actions at a frame of each episode, and at the environments' own states where they have some."""


class Scripted:
    """Acts by the environments' own controllers, or at random; sees nothing."""

    def __init__(self, environments: Sequence[Environment], random: bool) -> None:
        self.environments, self.random = environments, random

    def reset(self, batch: int, seeds: Sequence[int] | None = None) -> None:
        """See `Player.reset`."""
        self._random = EpisodeNoise(batch, seeds)

    def act(
        self, observation: UInt8[Tensor, "B 3 H W"], states: Float[Tensor, "B S"] | None = None
    ) -> Float[Tensor, "B A"]:
        """Actions `[B,A]` in [-1, 1]."""
        if self.random:
            return 2 * self._random.uniforms(self.environments[0].action_width, torch.zeros(())) - 1
        return torch.from_numpy(np.stack([each.control() for each in self.environments])).float()


def play(
    player: Player,
    environments: Sequence[Environment],
    seeds: Sequence[int],
    steps: int,
    on_step: Callable[[int, list[Arrival]], None] = lambda step, arrivals: None,
) -> tuple[Float[np.ndarray, " E"], float]:
    """Play one episode in each environment, all in step; one that has ended waits for the others.

    Args:
        player: acts in all of them.
        environments: one or more.
        seeds: one for each episode.
        steps: the most that an episode lasts.
        on_step: called with the number of each step, from 0, and the arrivals that the player has just acted on.

    Returns:
        The returns, sums of rewards in the environment's units, and the median seconds of one `act` for all episodes.
    """
    player.reset(len(environments), seeds)
    arrivals = [environment.reset(seed) for environment, seed in zip(environments, seeds, strict=True)]
    returns, over = np.zeros(len(environments)), np.zeros(len(environments), bool)
    seconds = []
    for step in range(steps):
        began = time.perf_counter()
        pixels = torch.from_numpy(np.stack([arrival.pixels for arrival in arrivals])).permute(0, 3, 1, 2)
        states = torch.from_numpy(np.stack([arrival.state for arrival in arrivals]))
        # actions in the units of other data may lie outside of the environments' range
        actions = player.act(pixels, states if states.numel() else None).cpu().numpy().clip(-1, 1)
        seconds.append(time.perf_counter() - began)
        on_step(step, arrivals)
        for number in np.flatnonzero(~over).tolist():
            arrivals[number] = environments[number].step(actions[number])
            returns[number] += arrivals[number].reward
            over[number] = arrivals[number].terminated or arrivals[number].truncated
        if over.all():
            break
    return returns, float(np.median(seconds))
