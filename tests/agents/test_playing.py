from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aime.agents.playing import bootstrap, play
from aime.data.collect.environment import Arrival


class Counter:
    """Rewards the action's first number; an episode of seed s ends after s steps."""

    action_width = 2
    step_seconds = 0.04

    def reset(self, seed: int) -> Arrival:
        self.seed, self.steps = seed, 0
        return self._arrive(float("nan"))

    def step(self, action: np.ndarray) -> Arrival:
        self.steps += 1
        assert self.steps <= self.seed, "stepped after its end"
        return self._arrive(float(action[0]))

    def control(self) -> np.ndarray:
        return np.zeros(2)

    def _arrive(self, reward: float) -> Arrival:
        pixels = np.full((4, 4, 3), self.steps, np.uint8)
        return Arrival(pixels, reward, self.steps == self.seed, np.zeros(1, np.float32), None)


class Echo:
    """Acts by what the frame says: a tenth of its brightness."""

    def reset(self, batch: int) -> None:
        self.batch = batch

    def act(self, observation: Tensor, states: Tensor | None = None) -> Tensor:
        assert observation.shape == (self.batch, 3, 4, 4) and observation.dtype == torch.uint8
        return observation[:, :2, 0, 0].float() / 10


def test_returns_are_sums_until_each_end() -> None:
    seen: list[int] = []
    played = play(
        Echo(), [Counter(), Counter(), Counter()], [3, 2, 9], 5, lambda step, arrivals, actions: seen.append(step)
    )
    np.testing.assert_allclose(played.returns, [0.3, 0.1, 1.0], rtol=1e-6)
    assert played.lengths.tolist() == [3, 2, 5]
    assert seen == [0, 1, 2, 3, 4]


def test_play_stops_where_all_have_ended() -> None:
    seen: list[int] = []
    play(Echo(), [Counter(), Counter()], [1, 2], 50, lambda step, arrivals, actions: seen.append(step))
    assert seen == [0, 1]


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for number in range(200):
        interval = bootstrap(generator.normal(3.0, 2.0, 30), seed=number, rounds=400)
        covered += interval.low <= 3.0 <= interval.high
    assert 0.87 <= covered / 200 <= 0.99
    alone = bootstrap(np.array([2.0]))
    assert (alone.mean, alone.low, alone.high) == (2.0, 2.0, 2.0)
