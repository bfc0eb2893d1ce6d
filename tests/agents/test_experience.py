from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import synthetic_episode
from tests.inference.runs import write_run
from tests.models import SIZE, small_config

from aime.agents import experience as module
from aime.agents.agent import Agent
from aime.agents.experience import perceive
from aime.data import open_dataset, write_shard
from aime.dynamics.states import Carry
from aime.inference.learned_data import open_experience
from aime.primitives.hardware import Hardware
from aime.world_model.model import AIME
from aime.world_model.saved import read_run

CPU = Hardware(torch.device("cpu"), torch.float32)


@pytest.fixture
def model() -> AIME:
    torch.manual_seed(0)
    return AIME(small_config()).eval().requires_grad_(False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_shard(tmp_path / "data" / "0.h5", [synthetic_episode(length, length, SIZE) for length in (9, 6, 9)])
    return tmp_path / "data"


class Replaying:
    """Decides what was recorded, and keeps what was believed."""

    def __init__(self, actions: np.ndarray) -> None:
        self.actions, self.states = iter(torch.from_numpy(actions)), []  # type: ignore[var-annotated]

    def reset(self, batch: int, seeds: Sequence[int] | None = None) -> None:
        pass

    def decide(self, state: Carry) -> torch.Tensor:
        self.states.append(state)
        return next(self.actions)[None]


def test_states_are_those_of_an_agent_that_plays(model: AIME, data: Path) -> None:
    dataset = open_dataset(data)
    found = perceive(model, dataset, 1000, CPU)
    assert found.frames == 24
    for number in range(3):
        episode = dataset.read(number)
        mine = found.rows(found.episode == number)
        deciding = Replaying(episode.action)
        agent = Agent(model, deciding)
        agent.reset(1)
        for frame in torch.from_numpy(episode.pixels).permute(0, 3, 1, 2):
            agent.act(frame[None])
        for name, seen in zip(Carry._fields, zip(*deciding.states, strict=True), strict=True):
            torch.testing.assert_close(getattr(mine.states, name), torch.cat(seen), rtol=1e-3, atol=1e-4)
        taken = torch.from_numpy(episode.action[:-1])
        torch.testing.assert_close(mine.actions[:-1], taken)
        assert mine.targets.action_valid.tolist() == [True] * (len(episode) - 1) + [False]
        assert mine.targets.terminated.tolist() == episode.terminated.tolist()


def test_long_episodes_are_cut_and_keep_their_numbers(model: AIME, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIP_FRAMES", 4)
    told: list[tuple[int, int]] = []
    found = perceive(
        model, open_dataset(data), 1000, CPU, lambda stage, done, total, figures: told.append((done, total))
    )
    assert [int((found.episode == number).sum()) for number in range(3)] == [8, 4, 8]
    assert told[-1] == (20, 24)


def test_few_frames_come_from_episodes_far_apart(model: AIME, data: Path) -> None:
    found = perceive(model, open_dataset(data), 16, CPU)
    assert found.frames == 18, "the first episode and the last"


def test_a_copy_is_no_episode_of_its_own(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    alone = open_experience(read_run(run.path), run.data)
    for shard in ("0.h5", "1.h5"):
        (run.data / f"copy-{shard}").write_bytes((run.data / shard).read_bytes())
    assert open_experience(read_run(run.path), run.data).digests == alone.digests
