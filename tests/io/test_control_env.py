from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from aime.errors import AimeError
from aime.io.collect.control_env import ControlEnv
from aime.io.collect.environment import ControlSuite
from aime.io.collect.recording import Recording, record_episode

pytestmark = pytest.mark.usefixtures("rendering")

SETTINGS: dict[str, Any] = {"domain": "cartpole", "task": "swingup", "image_size": 16}


def make(**settings: Any) -> ControlEnv:
    environment = gymnasium.make("aime.environments:aime/DMC-v0", **(SETTINGS | settings)).unwrapped
    assert isinstance(environment, ControlEnv)
    return environment


def test_gymnasium_s_checker_passes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(distractor="dynamic"))


def test_frames_rewards_and_states_are_those_of_a_recording() -> None:
    """The suite itself, from the same start and under the same actions, shows the same."""
    environment = make(action_repeat=8, length=3)
    pixels, info = environment.reset(seed=5)
    simulator = int(np.random.default_rng(5).integers(2**32, size=2)[0])
    suite = ControlSuite("cartpole", "swingup", 8, 16, 0)
    first = suite.reset(simulator)
    np.testing.assert_array_equal(info["state"], first.state)
    np.testing.assert_array_equal(pixels, first.pixels)
    for step in range(1, 4):
        action = np.array([0.3 * step], np.float32)
        expected = suite.step(action)
        pixels, reward, terminated, truncated, info = environment.step(action)
        np.testing.assert_array_equal(pixels, expected.pixels)
        np.testing.assert_array_equal(info["state"], expected.state)
        assert (reward, terminated, truncated) == (expected.reward, False, step == 3)


def test_the_defaults_are_those_of_aime_collect() -> None:
    environment = make(image_size=24)
    recording = Recording("cartpole", "swingup", 2, "random", 0, "none", 4, 24, 0)
    episode = record_episode(recording.build(), recording, 0)
    pixels, _ = environment.reset(seed=0)
    assert pixels.shape == episode.pixels.shape[1:] and environment._length == 250


def test_a_distractor_changes_the_background_with_the_seed() -> None:
    plain, still = make(), make(distractor="static")
    first, second = (still.reset(seed=seed)[0].astype(int) for seed in (0, 1))
    assert np.abs(first - plain.reset(seed=0)[0]).mean() > 5
    assert np.abs(first - second).mean() > 5
    np.testing.assert_array_equal(first, still.reset(seed=0)[0])


def test_what_is_rendered_is_what_is_observed() -> None:
    environment = make(render_mode="rgb_array", distractor="dynamic")
    pixels, _ = environment.reset(seed=0)
    np.testing.assert_array_equal(environment.render(), pixels)
    assert make().render() is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "swing"}, "no such task"),
        ({"distractor": "loud"}, "distractor is 'loud', expected 'none' or 'static' or 'dynamic'"),
        ({"action_repeat": 0}, "action_repeat is 0, expected 1 or more"),
        ({"length": 0}, "length is 0"),
        ({"image_size": 4}, "image_size is 4, expected 8 or more"),
        ({"camera": 7}, "camera 7: cartpole_swingup has 2"),
        ({"render_mode": "human"}, "render_mode is 'human'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(AimeError, match=message) as refusal:
        ControlEnv(**(SETTINGS | settings))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("action", [np.array([np.nan]), np.array([180.0]), np.zeros(2)])
def test_actions_that_are_none_are_refused(action: np.ndarray) -> None:
    environment = make()
    environment.reset(seed=0)
    with pytest.raises(AimeError, match=r"NaN or infinite; expected 1 numbers within -1 to 1|other units|shape \[2\]"):
        environment.step(action)


def test_forked_environments_render_and_those_of_a_parent_that_has_rendered_are_refused() -> None:
    """gymnasium's vector environments fork: a GL library that was used before is dead in the new processes."""
    program = """
import sys
import gymnasium
import aime.agents
settings = dict(num_envs=2, vectorization_mode="async", domain="cartpole", task="swingup", image_size=16)
settings["vector_kwargs"] = dict(context="fork")
worlds = gymnasium.make_vec("aime/DMC-v0", **settings)
print(worlds.reset(seed=0)[0].mean() > 10, flush=True)
worlds.close()
gymnasium.make("aime/DMC-v0", domain="cartpole", task="swingup", image_size=16).reset(seed=0)
try:
    gymnasium.make_vec("aime/DMC-v0", **settings).reset(seed=0)
except Exception as error:
    print("context" in str(error) and "spawn" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["True", "True"], done.stderr
