from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aime.agents.experience import Experience
from aime.agents.returns import AdvantageScale, followed, lambda_returns, largest_return, recorded_returns
from aime.data.clips import Targets
from aime.dynamics.states import Carry


def mixed_n_step_returns(rewards: Tensor, continues: Tensor, values: Tensor, discount: float, trace: float) -> Tensor:
    """(1-λ) Σ_n λ^{n-1} R^n + λ^{N-1} R^N of every start, from the definition of the n-step return R^n."""
    steps = len(rewards)
    found = torch.zeros_like(rewards)
    for start in range(steps):
        weight_left = torch.ones_like(rewards[0])
        total, reached = torch.zeros_like(rewards[0]), torch.ones_like(rewards[0])
        for end in range(start, steps):
            total = total + reached * rewards[end]
            reached = reached * discount * continues[end]
            weight = weight_left if end == steps - 1 else weight_left * (1 - trace)
            found[start] += weight * (total + reached * values[end])
            weight_left = weight_left * trace
    return found


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.floats(0, 1), st.floats(0, 1), st.integers(0, 1000))
def test_returns_are_the_weighted_n_step_returns(steps: int, discount: float, trace: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards, continues, values = torch.rand(3, steps, 4, generator=generator, dtype=torch.float64)
    found = lambda_returns(rewards, continues, values, discount, trace)
    expected = mixed_n_step_returns(rewards, continues, values, discount, trace)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_an_end_hides_what_would_come_after_it() -> None:
    rewards, values = torch.ones(3, 1), torch.full((3, 1), 100.0)
    continues = torch.tensor([[1.0], [0.0], [1.0]])
    assert lambda_returns(rewards, continues, values, 1.0, 1.0)[:, 0].tolist() == [2.0, 1.0, 101.0]


def test_the_scale_follows_the_spread_and_stays_above_one() -> None:
    scale = AdvantageScale(decay=0.5)
    wide = torch.linspace(0, 100, 1001)
    assert float(scale(wide)) == pytest.approx(90.0, abs=1e-3)
    assert float(scale(wide * 0)) == pytest.approx(45.0, abs=1e-3)
    small = AdvantageScale()
    assert float(small(wide / 1000)) == 1.0


def recorded(episode: list[int], rewards: list[float], terminated: list[bool]) -> Experience:
    count, sure = len(episode), torch.ones(len(episode), dtype=torch.bool)
    states = Carry(*(torch.zeros(count, 1) for _ in Carry._fields))
    targets = Targets(sure, sure, torch.tensor(rewards), sure, torch.tensor(terminated), torch.empty(count, 0))
    return Experience(states, torch.zeros(count, 1), targets, torch.tensor(episode))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(0, 99), st.floats(0, 1), st.floats(0, 1))
def test_returns_are_those_of_each_episode_by_itself(
    episode: list[int], seed: int, discount: float, trace: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, len(episode), generator=generator)
    ended = torch.rand(len(episode), generator=generator) < 0.2
    found = recorded_returns(recorded(episode, rewards.tolist(), ended.tolist()), values, discount, trace)
    for number in set(episode):
        rows = [row for row, other in enumerate(episode) if other == number]
        expected = float(values[rows[-1]])
        assert float(found[rows[-1]]) == pytest.approx(expected)
        for row, after in reversed(list(itertools.pairwise(rows))):
            mixed = (1 - trace) * float(values[after]) + trace * expected
            expected = float(rewards[after]) + (0.0 if ended[after] else discount * mixed)
            assert float(found[row]) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_the_last_frame_of_an_episode_is_not_followed() -> None:
    found = followed(recorded([0, 1, 0, 2, 1, 0], [0.0] * 6, [False] * 6))
    assert found.tolist() == [True, True, True, False, False, False]


def test_the_largest_return_is_the_largest_reward_for_ever_or_for_the_longest_episode() -> None:
    some = recorded([0, 0, 0, 1, 1], [0.0, 1.0, -2.0, 0.0, 1.5], [False] * 5)
    assert largest_return(some, 0.9) == pytest.approx(20.0)
    assert largest_return(some, 1.0) == pytest.approx(6.0)
    assert largest_return(recorded([0, 0], [0.0, 0.0], [False] * 2), 0.9) > 0
