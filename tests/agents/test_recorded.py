from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aime.agents.experience import Experience
from aime.agents.recorded import followed, largest_return, recorded_returns
from aime.dynamics.states import Carry
from aime.world_model.outputs import Targets


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
