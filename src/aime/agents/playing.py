"""Agents in environments: several episodes in step, and the returns that they come to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from aime.io.collect import Environment
from aime.io.collect.environment import Arrival


class Acting(Protocol):
    """What plays: sees frames of B episodes, and answers with actions."""

    def reset(self, batch: int, seeds: Sequence[int] | None = None) -> None:
        """Begin `batch` episodes with these seeds."""

    def act(
        self, observation: UInt8[Tensor, "B 3 H W"], states: Float[Tensor, "B S"] | None = None
    ) -> Float[Tensor, "B A"]:
        """Look at a frame of each, and at the worlds' own states where they tell them, and act."""


Looked = Callable[[int, list[Arrival], np.ndarray], None]
"""Called with each step's number, from 0, its arrivals and the actions `[E,A]` that the agent answers them with."""


class Played(NamedTuple):
    """E episodes of T steps at most."""

    returns: Float[np.ndarray, " E"]
    """Sums of rewards, in the environment's units."""
    lengths: Float[np.ndarray, " E"]
    """Steps taken until the end."""
    last: list[Arrival]
    """Where each ended, which no agent has seen."""
    seconds_per_act: float
    """Median time of one `act` of all episodes at once."""


def play(
    agent: Acting,
    environments: Sequence[Environment],
    seeds: Sequence[int],
    steps: int,
    looked: Looked = lambda step, arrivals, actions: None,
) -> Played:
    """Play one episode in each environment, all in step, so that the agent sees a batch.

    An episode that has ended stands still, and earns nothing more.

    Args:
        agent: acts in all of them.
        environments: one or more.
        seeds: of the episodes, one each.
        steps: the most that an episode lasts.
        looked: see `Looked`.
    """
    agent.reset(len(environments), seeds)
    arrivals = [environment.reset(seed) for environment, seed in zip(environments, seeds, strict=True)]
    returns, lengths = np.zeros(len(environments)), np.full(len(environments), float(steps))
    over = np.zeros(len(environments), bool)
    seconds = []
    for step in range(steps):
        began = time.perf_counter()
        # an agent that answers in the units of data from elsewhere may leave the environments' range
        actions = agent.act(_frames(arrivals), _states(arrivals)).cpu().numpy().clip(-1, 1)
        seconds.append(time.perf_counter() - began)
        looked(step, arrivals, actions)
        for place in np.flatnonzero(~over).tolist():
            arrivals[place] = environments[place].step(actions[place])
            returns[place] += arrivals[place].reward
            if arrivals[place].terminated or arrivals[place].truncated:
                over[place], lengths[place] = True, step + 1
        if over.all():
            break
    return Played(returns, lengths, arrivals, float(np.median(seconds)))


def _frames(arrivals: Sequence[Arrival]) -> UInt8[Tensor, "B 3 H W"]:
    return torch.from_numpy(np.stack([arrival.pixels for arrival in arrivals])).permute(0, 3, 1, 2)


def _states(arrivals: Sequence[Arrival]) -> Float[Tensor, "B S"] | None:
    """As `aime collect` records them, in the same order; None from environments that tell none."""
    if not arrivals[0].state.size:
        return None
    return torch.from_numpy(np.stack([arrival.state for arrival in arrivals]))
