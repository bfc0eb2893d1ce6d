"""Episodes in environments, several at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from aime.io.collect import Environment
from aime.io.collect.environment import Arrival
from aime.primitives.episode_noise import EpisodeNoise


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
    on_step: Callable[[int, int, list[Arrival]], None] = lambda number, step, arrivals: None,
) -> tuple[Float[np.ndarray, " E"], float]:
    """Play an episode for each of E seeds, as many at once as there are environments.

    Args:
        player: acts in all environments.
        environments: one or more.
        seeds: one or more.
        steps: the most that an episode lasts.
        on_step: called with the number of the first episode of a batch, the number of the step, both from 0, and the
            arrivals that the player has just acted on.

    Returns:
        The returns, sums of rewards in the environment's units, and the median seconds of one `act`.
    """
    returns, seconds = np.zeros(len(seeds)), list[float]()
    for first in range(0, len(seeds), len(environments)):
        batch = seeds[first : first + len(environments)]
        player.reset(len(batch), batch)
        arrivals = [environment.reset(seed) for environment, seed in zip(environments, batch, strict=False)]
        over = np.zeros(len(batch), bool)
        for step in range(steps):
            began = time.perf_counter()
            pixels = torch.from_numpy(np.stack([arrival.pixels for arrival in arrivals])).permute(0, 3, 1, 2)
            states = torch.from_numpy(np.stack([arrival.state for arrival in arrivals]))
            # actions in the units of other data may lie outside of the environments' range
            actions = player.act(pixels, states if states.numel() else None).cpu().numpy().clip(-1, 1)
            seconds.append(time.perf_counter() - began)
            on_step(first, step, arrivals)
            # an episode that has ended waits for the others
            for number in np.flatnonzero(~over).tolist():
                arrivals[number] = environments[number].step(actions[number])
                returns[first + number] += arrivals[number].reward
                over[number] = arrivals[number].terminated or arrivals[number].truncated
            if over.all():
                break
    return returns, float(np.median(seconds))
