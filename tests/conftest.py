"""Shared fixtures: small synthetic data."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from aime.data import Episode, write_shard
from aime.io.collect.environment import rendering_problem

# how long an example takes says how busy the machine is
settings.register_profile("aime", deadline=None)
settings.load_profile("aime")

MakeEpisode = Callable[..., Episode]


def synthetic_episode(
    length: int, seed: int = 0, size: int = 8, action_width: int = 2, state_width: int | None = 3, masked: bool = False
) -> Episode:
    """A bright square that actions push over a dark ramp; NaN where the schema allows it.

    The mask has id 1 at the square and 2 at the ramp's last row.

    The first state variable is the number of the step and the second the seed, by which a test knows a frame again.
    """
    generator = np.random.default_rng(seed)
    action = generator.uniform(-1, 1, (length, action_width)).astype(np.float32)
    position = np.cumsum(action.mean(axis=1)).round().astype(int)
    pixels = np.broadcast_to(np.arange(size, dtype=np.uint8)[:, None] * 3, (length, size, size, 3)).copy()
    for step in range(length):
        pixels[step, size // 2, (position[step] + size // 2) % size] = 200 + seed % 50, step % 256, 255
    reward = generator.normal(size=length).astype(np.float32)
    action[-1], reward[0] = np.nan, np.nan
    terminated = np.arange(length) == length - 1
    state = None
    if state_width is not None:
        state = np.zeros((length, state_width), dtype=np.float32)
        state[:, 0], state[:, 1:2] = np.arange(length), seed
    mask = np.where(pixels[..., 2] == 255, 1, 0).astype(np.uint8)
    mask[:, -1] = 2
    return Episode(pixels, action, reward, terminated, state, mask if masked else None)


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Bundled data is unpacked once a session, away from the user's own cache; commands run by a test inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        directory = tmp_path_factory.mktemp("aime-cache")
        patch.setenv("AIME_CACHE", str(directory))
        yield directory


@pytest.fixture(scope="session", autouse=True)
def hangups_count() -> None:
    """Tests send SIGHUP, which a suite started by nohup would inherit as ignored."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def rendering() -> None:
    """Skips a test where DeepMind Control cannot draw."""
    problem = rendering_problem(timeout=300)
    if problem is not None:
        pytest.skip(problem)


@pytest.fixture
def make_episode() -> MakeEpisode:
    """`make_episode(length, seed=0, size=8, action_width=2, state_width=3, masked=False)`."""
    return synthetic_episode


@pytest.fixture
def shard_directory(tmp_path: Path) -> Path:
    """Two shards of three and two episodes, of 40, 7, 23, 64 and 16 steps."""
    directory = tmp_path / "shards"
    lengths = [40, 7, 23, 64, 16]
    episodes = [synthetic_episode(length, seed) for seed, length in enumerate(lengths)]
    write_shard(directory / "000.h5", episodes[:3], {"task": "square", "seed": 0})
    write_shard(directory / "001.h5", episodes[3:], {"task": "square", "seed": 3})
    return directory
