from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.models import SIZE, small_config
from torch import Tensor

from aime.agents.agent import Agent, PolicyDecider
from aime.agents.playing import play
from aime.data.shards import Attribute
from aime.dynamics.states import Carry
from aime.errors import AimeError
from aime.io.collect.environment import Arrival
from aime.perception.state_reader import StateConfig
from aime.primitives.distributions import CensoredGaussian
from aime.world_model.model import AIME


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

    def notes(self) -> dict[str, Attribute]:
        return {}

    def _arrive(self, reward: float) -> Arrival:
        pixels = np.full((4, 4, 3), self.steps, np.uint8)
        state = np.array([self.seed, -self.steps], np.float32)
        return Arrival(pixels, reward, self.steps == self.seed, state, None)


class Echo:
    """Acts by what the frame says: a tenth of its brightness."""

    def reset(self, batch: int, seeds: Sequence[int] | None = None) -> None:
        self.batch = batch

    def act(self, observation: Tensor, states: Tensor | None = None) -> Tensor:
        assert observation.shape == (self.batch, 3, 4, 4) and observation.dtype == torch.uint8
        assert states is not None and (states[:, 1] == -observation[:, 0, 0, 0].float()).all()
        return observation[:, :2, 0, 0].float() / 10


def test_returns_are_sums_until_each_end() -> None:
    seen: list[int] = []
    returns, _ = play(
        Echo(), [Counter(), Counter(), Counter()], [3, 2, 9], 5, lambda number, step, arrivals: seen.append(step)
    )
    np.testing.assert_allclose(returns, [0.3, 0.1, 1.0], rtol=1e-6)
    assert seen == [0, 1, 2, 3, 4]


def test_play_stops_where_all_have_ended() -> None:
    seen: list[int] = []
    play(Echo(), [Counter(), Counter()], [1, 2], 50, lambda number, step, arrivals: seen.append(step))
    assert seen == [0, 1]


class Film(Counter):
    """The same, of larger frames; one that tells no state where `width` is 0."""

    def __init__(self, width: int = 2) -> None:
        self.width = width

    def _arrive(self, reward: float) -> Arrival:
        arrival = super()._arrive(reward)
        pixels = np.full((SIZE, SIZE, 3), self.steps, np.uint8)
        return arrival._replace(pixels=pixels, state=arrival.state[: self.width])


@torch.no_grad()
def test_an_agent_sees_the_states_that_its_model_observes() -> None:
    torch.manual_seed(0)
    model = AIME(replace(small_config(), state=StateConfig(width=2))).eval()
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    assert model.dynamics.control is not None
    agent = Agent(model, PolicyDecider(model.dynamics.control.action_schema))
    contexts = []

    def keep(number: int, step: int, arrivals: list[Arrival]) -> None:
        assert agent.seen is not None
        contexts.append(agent.seen.context)

    play(agent, [Film(), Film()], [3, 4], 2, keep)
    frames = torch.zeros(2, 1, 3, SIZE, SIZE, dtype=torch.uint8)
    states = torch.tensor([[[3.0, 0.0]], [[4.0, 0.0]]])
    torch.testing.assert_close(contexts[0], model.extract_context(frames, states)[:, 0], rtol=1e-4, atol=1e-5)
    play(agent, [Film(width=0)], [3], 1, keep)
    torch.testing.assert_close(contexts[-1], model.extract_context(frames[:1])[:, 0], rtol=1e-4, atol=1e-5)
    with pytest.raises(AimeError, match=r"states have shape \[1, 1\]; expected \[1, 2\]"):
        play(agent, [Film(width=1)], [3], 1)
    alone = AIME(small_config()).eval()
    assert alone.dynamics.control is not None
    play(Agent(alone, PolicyDecider(alone.dynamics.control.action_schema)), [Film()], [3], 1)


def test_a_policy_acts_by_its_mode_a_little_noise_or_a_sample() -> None:
    torch.manual_seed(0)
    told = CensoredGaussian(torch.tensor([0.2, 0.95]).expand(4000, 2), torch.tensor(0.5).expand(4000, 2))
    state = Carry(*(torch.zeros(4000, 1) for _ in Carry._fields))

    def policy(belief: Tensor, latent: Tensor, step: Tensor) -> CensoredGaussian:
        return told

    assert torch.equal(PolicyDecider(policy).decide(state), told.mode)
    shaken = PolicyDecider(policy, noise=0.1).decide(state)
    assert float(shaken[:, 0].mean()) == pytest.approx(0.2, abs=0.01)
    assert float(shaken[:, 0].std()) == pytest.approx(0.1, rel=0.05)
    assert shaken.max() == 1
    assert float(PolicyDecider(policy, sample=True).decide(state)[:, 0].std()) > 0.4
    with pytest.raises(AimeError, match=r"noise is -1\.0; expected 0 or more"):
        PolicyDecider(policy, noise=-1.0)
