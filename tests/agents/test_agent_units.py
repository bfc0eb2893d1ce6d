"""From the scale that an importer noted to actions in the robot's units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tests.conftest import synthetic_episode
from tests.models import SIZE, small_config

from aime.agents.agent import Agent
from aime.data import write_shard
from aime.data.action_scale import ActionScale
from aime.dynamics.states import Carry
from aime.environments.dream_env import DreamEnv
from aime.errors import AimeError
from aime.inference.learned_data import open_experience
from aime.inference.loading import load_run
from aime.primitives.tensor_files import save_weights
from aime.training import run_directory
from aime.training.config import TrainConfig
from aime.training.run_data import open_run_data
from aime.world_model.model import AIME
from aime.world_model.saved import AVERAGED_WEIGHTS, read_run

DEGREES = ActionScale((-90.0, 0.0), (180.0, 4.0))
DECIDED = torch.tensor([[0.0, -1.0]])


class Steady:
    """Decides one thing."""

    def reset(self, batch: int, seeds: Sequence[int] | None = None) -> None:
        pass

    def decide(self, state: Carry) -> torch.Tensor:
        return DECIDED


def write_run(place: Path, scale: ActionScale | None) -> Path:
    """A run with random weights, as `aime train` starts one on imported data."""
    episodes = [synthetic_episode(length, length, SIZE) for length in (9, 8)]
    write_shard(place / "data" / "0.h5", episodes, {} if scale is None else scale.attributes())
    config = TrainConfig(str(place / "data"), place / "run", small_config(), "small", steps=1)
    with run_directory.locked(config):
        run_directory.prepare(config, open_run_data(config))
    torch.manual_seed(0)
    model = AIME(config.model)
    assert model.dynamics.control is not None
    model.dynamics.control.rewards_seen.fill_(1)
    save_weights(model.state_dict(), config.out / "checkpoint" / AVERAGED_WEIGHTS)
    return config.out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("degrees"), DEGREES)


def acts(model: AIME, **settings: bool) -> torch.Tensor:
    agent = Agent(model, Steady(), **settings)
    agent.reset(1)
    frame = torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)
    agent.act(frame)
    return agent.act(frame)


def test_an_agent_answers_in_the_units_of_the_data(run: Path) -> None:
    info, model = load_run(run, "cpu")
    assert info.action_scale == model.action_scale == DEGREES
    assert acts(model).tolist() == [[45.0, 0.0]]
    assert acts(model, original_units=False).tolist() == DECIDED.tolist()


def test_the_model_hears_of_its_actions_in_its_own_units(run: Path) -> None:
    _, model = load_run(run, "cpu")
    states = []
    for settings in ({}, {"original_units": False}):
        agent = Agent(model, Steady(), **settings)
        agent.reset(1)
        for shade in (10, 200, 90):
            agent.act(torch.full((1, 3, SIZE, SIZE), shade, dtype=torch.uint8))
        assert agent.state is not None
        states.append(agent.state.carry.belief)
    assert torch.equal(*states)


def test_a_run_on_data_without_a_scale_acts_as_ever(tmp_path: Path) -> None:
    run = write_run(tmp_path, None)
    assert "actions" not in (run / "config.yaml").read_text().splitlines()
    info, model = load_run(run, "cpu")
    assert info.action_scale is None
    assert acts(model).tolist() == DECIDED.tolist()
    with pytest.raises(AimeError, match="does not know the units of its data's actions"):
        DreamEnv(run, original_units=True, context=2, starts=2, device="cpu")


def test_a_dream_takes_actions_in_the_units_of_the_data(run: Path) -> None:
    plain, original = (
        DreamEnv(run, original_units=asked, context=2, starts=2, deterministic=True, device="cpu")
        for asked in (False, True)
    )
    assert isinstance(original.action_space, spaces.Box)
    assert original.action_space.low.tolist() == [-90, 0] and original.action_space.high.tolist() == [180, 4]
    for env in (plain, original):
        env.reset(seed=3)
    seen = [plain.step(np.array([0.5, -0.5]))[0], original.step(np.array([112.5, 1.0]))[0]]
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-6)


def test_other_data_is_read_in_the_scale_of_the_run(run: Path, tmp_path: Path) -> None:
    episode = synthetic_episode(9, 1, SIZE)
    write_shard(tmp_path / "small" / "0.h5", [episode], ActionScale((45.0, 0.0), (135.0, 4.0)).attributes())
    found = open_experience(read_run(run), tmp_path / "small").read(0).action[:, 0]
    np.testing.assert_allclose(found, episode.action[:, 0] / 3 + 1 / 3, atol=1e-6)
    write_shard(tmp_path / "large" / "0.h5", [episode], ActionScale((-999.0, 0.0), (999.0, 4.0)).attributes())
    with pytest.raises(AimeError, match="some lie outside of the run's -90 to 180, 0 to 4"):
        open_experience(read_run(run), tmp_path / "large")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("actions: {low: [0.0], high: [1.0]}", "actions: found 1 ranges, expected 2"),
        ("actions: {low: [0.0, 0.0]}", "actions.high: missing field"),
        ("actions: {low: [9.0, 0.0], high: [1.0, 1.0]}", "actions: action range"),
    ],
)
def test_a_scale_that_does_not_fit_the_run(tmp_path: Path, line: str, words: str) -> None:
    run = write_run(tmp_path, None)
    settings, _ = (run / "config.yaml").read_text(encoding="utf-8").rsplit("#", 1)  # less its checksum
    (run / "config.yaml").write_text(settings + line + "\n", encoding="utf-8")
    with pytest.raises(AimeError, match=words) as problem:
        read_run(run)
    assert "\n" not in str(problem.value)
