from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from aime.data.opening import open_dataset
from aime.data.shards import Attribute, write_shard
from aime.data.state_names import note_state_names, read_state_names
from aime.errors import AimeError
from aime.io.collect import environment as environments
from aime.io.collect.collect import collect, directories
from aime.io.collect.environment import (
    Arrival,
    ControlSuite,
    default_action_repeat,
    default_camera,
    rendering_problem,
    split_name,
)
from aime.io.collect.plan import SHARD_EPISODES, _runs, plan
from aime.io.collect.policies import Policy, random_actions, smooth_actions, start_policy
from aime.io.collect.recording import Distracted, Recorded, Recording, record_episode
from aime.primitives.signals import handled

ROOT = Path(__file__).parents[2]
RECORDING = Recording("fake", "drift", 6, "random", 7, "none", action_repeat=1, image_size=8, camera=0)


class Drift:
    """A body that each action moves; the frame shows its place, and a reset at an odd seed makes it end early."""

    action_width = 2
    step_seconds = 0.1

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause

    def reset(self, seed: int) -> Arrival:
        self.place = np.full(2, seed % 100, np.float32)
        self.steps, self.last = 0, 3 if seed % 2 else 1000
        return self._arrive(float("nan"))

    def step(self, action: np.ndarray) -> Arrival:
        time.sleep(self.pause)
        self.place = self.place + action
        self.steps += 1
        return self._arrive(float(action.sum()))

    def control(self) -> np.ndarray:
        return np.clip(-self.place / 10, -1, 1)

    def notes(self) -> dict[str, Attribute]:
        return note_state_names({"place": 2})

    def _arrive(self, reward: float) -> Arrival:
        pixels = np.full((8, 8, 3), int(abs(self.place[0])) % 256, np.uint8)
        return Arrival(pixels, reward, self.steps == self.last, self.place.astype(np.float32), None)


def build(recording: Recording) -> Drift:
    return Drift()


def build_slowly(recording: Recording) -> Drift:
    return Drift(pause=0.02)


def build_nothing(recording: Recording) -> Drift:
    raise AimeError("no such world; choose another")


def crash(recording: Recording) -> Drift:
    os._exit(3)


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recording processes import the builders above by this module's name."""
    monkeypatch.syspath_prepend(str(ROOT))


# policies


@settings(deadline=None)
@given(st.sampled_from(get_args(Policy)), st.integers(0, 2**32), st.integers(1, 60))
def test_actions_stay_in_range_and_follow_from_the_generator(policy: Policy, seed: int, length: int) -> None:
    def draw() -> np.ndarray:
        world = Drift()
        world.reset(36)
        act = start_policy(policy, np.random.default_rng(seed), length, world)
        return np.stack([act(step) for step in range(length)])

    actions = draw()
    assert actions.shape == (length, 2) and actions.dtype == np.float32
    assert np.abs(actions).max() <= 1
    np.testing.assert_array_equal(actions, draw())


def test_more_skill_brings_a_body_nearer_home() -> None:
    def distance(policy: Policy) -> float:
        world, total = Drift(), 0.0
        for seed in range(20):
            world.reset(36)
            act = start_policy(policy, np.random.default_rng(seed), 100, world)
            total += sum(float(np.abs(world.step(act(step)).state).mean()) for step in range(100))
        return total

    assert distance("expert") < distance("medium") < distance("smooth")
    assert distance("expert") < distance("mixed") < distance("smooth")


def test_a_policy_with_skill_needs_a_task_with_a_controller() -> None:
    with pytest.raises(AimeError, match=r"policy expert: fake_drift has no controller; choose random or smooth"):
        replace(RECORDING, policy="expert")


def correlation(actions: np.ndarray) -> float:
    return float(np.corrcoef(actions[:-1].ravel(), actions[1:].ravel())[0, 1])


def test_random_actions_are_uniform_and_independent() -> None:
    actions = random_actions(np.random.default_rng(0), 20_000, 1)
    assert abs(correlation(actions)) < 0.03
    assert np.histogram(actions, bins=4, range=(-1, 1))[0] / len(actions) == pytest.approx([0.25] * 4, abs=0.02)


def test_smooth_actions_are_correlated_and_do_not_push_a_body_away() -> None:
    smooth = np.stack([smooth_actions(np.random.default_rng(seed), 400, 1) for seed in range(50)])
    independent = np.stack([random_actions(np.random.default_rng(seed), 400, 1) for seed in range(50)])
    assert np.mean([correlation(actions) for actions in smooth]) > 0.4

    def travel(actions: np.ndarray) -> float:
        return float(np.abs(actions.cumsum(axis=1).cumsum(axis=1)[:, -1]).mean())

    assert travel(smooth) < 0.2 * travel(independent)


def test_smooth_episodes_differ_in_strength() -> None:
    strengths = [smooth_actions(np.random.default_rng(seed), 100, 1).std() for seed in range(50)]
    assert min(strengths) < 0.4 and max(strengths) > 0.75


# one episode


def even_episode(recording: Recording = RECORDING, even: bool = True) -> int:
    """The number of an episode whose reset seed is even, so that it does not end early, or odd."""
    lengths = {number: len(record_episode(Drift(), recording, number)) for number in range(20)}
    return next(number for number, length in lengths.items() if (length == recording.length) == even)


def test_rewards_and_states_describe_the_arrival() -> None:
    episode = record_episode(Drift(), RECORDING, even_episode())
    assert episode.state is not None and len(episode) == RECORDING.length
    assert np.isnan(episode.reward[0]) and np.isnan(episode.action[-1]).all()
    assert np.isfinite(episode.reward[1:]).all() and np.isfinite(episode.action[:-1]).all()
    np.testing.assert_allclose(np.diff(episode.state, axis=0), episode.action[:-1], atol=1e-5)
    np.testing.assert_allclose(episode.reward[1:], episode.action[:-1].sum(axis=1), rtol=1e-6)
    assert not episode.terminated.any()


def test_an_episode_that_terminates_is_shorter_and_says_so_at_its_end() -> None:
    episode = record_episode(Drift(), RECORDING, even_episode(even=False))
    assert len(episode) == 4
    assert episode.terminated.tolist() == [False, False, False, True]
    assert np.isnan(episode.action[-1]).all()


def test_an_environment_keeps_the_episode_since_its_last_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recording, "build", build)
    world, actions = Recorded(RECORDING), np.random.default_rng(0).uniform(-1, 1, (3, 2)).astype(np.float32)
    for seed in (4, 2):
        arrivals = [world.reset(seed), *(world.step(action) for action in actions)]
    episode = world.episode
    np.testing.assert_array_equal(episode.action[:-1], actions)
    np.testing.assert_array_equal(episode.state, [arrival.state for arrival in arrivals])
    np.testing.assert_array_equal(
        episode.reward[1:], np.array([arrival.reward for arrival in arrivals[1:]], np.float32)
    )


def test_an_episode_depends_on_its_number_and_the_seed_alone() -> None:
    used = Drift()
    forwards = [record_episode(used, RECORDING, number) for number in range(4)]
    backwards = [record_episode(used, RECORDING, number) for number in reversed(range(4))][::-1]
    for first, second in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(first.action, second.action)
        np.testing.assert_array_equal(first.pixels, second.pixels)
    other = record_episode(used, replace(RECORDING, seed=8), 0)
    assert not np.array_equal(other.action[:3], forwards[0].action[:3])
    assert not np.array_equal(forwards[0].action[:3], forwards[1].action[:3])


# what is left to do


@settings(deadline=None)
@given(st.sets(st.integers(0, 60)), st.integers(1, 9))
def test_runs_cover_every_number_once_in_order(numbers: set[int], most: int) -> None:
    runs = list(_runs(sorted(numbers), most))
    assert [first + step for first, count in runs for step in range(count)] == sorted(numbers)
    assert all(1 <= count <= most for _, count in runs)


def write(directory: Path, first: int, count: int, recording: Recording = RECORDING) -> Path:
    path = directory / f"episodes-{first:06d}-{first + count - 1:06d}.h5"
    episodes = [record_episode(Drift(), recording, number) for number in range(first, first + count)]
    write_shard(path, episodes, recording.attributes() | {"first_episode": first})
    return path


def test_a_plan_fills_the_gaps_and_extends(tmp_path: Path) -> None:
    write(tmp_path, 0, 2)
    write(tmp_path, 4, 1)
    jobs = plan(RECORDING, tmp_path, 8, workers=1)
    assert [(job.first, job.count) for job in jobs] == [(2, 2), (5, 3)]
    assert jobs[0].path == tmp_path / "episodes-000002-000003.h5"
    assert plan(RECORDING, tmp_path, 2, workers=1) == []


def test_a_plan_shares_the_work_between_processes_and_bounds_a_shard(tmp_path: Path) -> None:
    assert [job.count for job in plan(RECORDING, tmp_path, 10, workers=4)] == [3, 3, 3, 1]
    assert max(job.count for job in plan(RECORDING, tmp_path, 1000, workers=2)) == SHARD_EPISODES
    assert {job.count for job in plan(replace(RECORDING, length=5000), tmp_path, 4, workers=1)} == {1}


OTHER_SETTINGS = {
    "domain": "cartpole",
    "task": "balance",
    "length": 7,
    "policy": "smooth",
    "seed": 8,
    "distractor": "static",
    "action_repeat": 2,
    "image_size": 64,
    "camera": 1,
}


@pytest.mark.parametrize("setting", sorted(OTHER_SETTINGS))
def test_other_settings_in_the_same_directory_are_refused(tmp_path: Path, setting: str) -> None:
    path = write(tmp_path, 0, 1)
    changed = replace(RECORDING, **{setting: OTHER_SETTINGS[setting]})  # type: ignore[arg-type]
    with pytest.raises(AimeError, match="choose another --out") as refusal:
        plan(changed, tmp_path, 4, workers=1)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_shards_of_others_are_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "mine.h5", [record_episode(Drift(), RECORDING, 0)], {"robot": "mine"})
    with pytest.raises(AimeError, match=r"mine\.h5.*first_episode"):
        plan(RECORDING, tmp_path, 4, workers=1)


def test_a_file_is_no_directory_to_record_into(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AimeError, match="is a file"):
        plan(RECORDING, tmp_path / "file", 4, workers=1)


def test_one_environment_goes_into_the_directory_and_several_beside_each_other(tmp_path: Path) -> None:
    other = replace(RECORDING, task="stand")
    assert directories([RECORDING], tmp_path) == [tmp_path]
    assert directories([RECORDING, other], tmp_path) == [tmp_path / "fake_drift", tmp_path / "fake_stand"]


# processes


@pytest.mark.usefixtures("importable")
def test_recording_goes_on_where_it_stopped_and_is_the_same(tmp_path: Path) -> None:
    quiet = Console(quiet=True)
    assert collect([RECORDING], tmp_path, 5, 2, build, quiet) == 5 * RECORDING.length
    dataset = open_dataset(tmp_path)
    assert dataset.episodes == 5
    assert dataset.attributes["policy"] == "random" and dataset.attributes["shadow"] is False
    assert read_state_names(dataset.attributes, dataset.state_width) == {"place": 2}
    for number in range(5):
        expected = record_episode(Drift(), RECORDING, number)
        np.testing.assert_array_equal(dataset.read(number).action, expected.action)
        np.testing.assert_array_equal(dataset.read(number).pixels, expected.pixels)
    lost = sorted(tmp_path.iterdir())[1]
    before = lost.read_bytes()
    lost.unlink()
    assert collect([RECORDING], tmp_path, 5, 1, build, quiet) == 2 * RECORDING.length
    assert lost.read_bytes() == before
    assert collect([RECORDING], tmp_path, 5, 2, build, quiet) == 0


@pytest.mark.usefixtures("importable")
def test_an_error_in_a_process_reaches_the_user(tmp_path: Path) -> None:
    with pytest.raises(AimeError, match="no such world"):
        collect([RECORDING], tmp_path, 2, 1, build_nothing, Console(quiet=True))


@pytest.mark.usefixtures("importable")
def test_a_crash_of_a_process_is_told_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(AimeError, match=r"process crashed.*--workers"):
        collect([RECORDING], tmp_path, 2, 1, crash, Console(quiet=True))
    assert not list(tmp_path.iterdir())


def test_an_interruption_leaves_whole_shards(tmp_path: Path) -> None:
    program = (
        "import signal\n"
        "from tests.io.test_collect import RECORDING, build_slowly\n"
        "from aime.io.collect import collect\n"
        # a shell's background job, as this test may be in, starts with the interrupt ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"if __name__ == '__main__': collect([RECORDING], {str(tmp_path)!r}, 400, 1, build_slowly)"
    )
    script = tmp_path / "record.py"
    script.write_text(program)
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    process = subprocess.Popen([sys.executable, str(script)], env=paths, start_new_session=True, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: bool(list(tmp_path.glob("*.h5"))))
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode != 0 and b"Interrupted" in errors
    recorded = open_dataset(tmp_path).episodes
    assert 0 < recorded < 400
    assert sum(job.count for job in plan(RECORDING, tmp_path, 400, workers=1)) == 400 - recorded


def test_sigterm_ends_a_recording_as_ctrl_c_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), handled():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) is before


def wait_until(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing was recorded"
        time.sleep(0.05)


# DeepMind Control


def test_action_repeats_and_cameras() -> None:
    assert [default_action_repeat(name) for name in ("cartpole", "cheetah", "finger", "hopper")] == [4, 4, 2, 2]
    assert default_camera("cartpole") == 0 and default_camera("quadruped") == 2


@pytest.mark.parametrize("name", ["cartpole_swingup", "gym:CartPole-v1", "dmc:", ""])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(AimeError, match="expected dmc:DOMAIN_TASK"):
        split_name(name)


def fake_dm_control(monkeypatch: pytest.MonkeyPatch, directory: Path, suite: str) -> None:
    """Put a package in dm_control's place whose suite runs some code when it is imported."""
    (directory / "suite.py").write_text(suite)
    package = types.ModuleType("dm_control")
    package.__path__ = [str(directory)]
    monkeypatch.setitem(sys.modules, "dm_control", package)
    monkeypatch.delitem(sys.modules, "dm_control.suite", raising=False)
    monkeypatch.setattr(environments, "version", lambda name: "3.2.0")
    monkeypatch.setenv("MUJOCO_GL", "egl")


@pytest.mark.parametrize(
    "suite",
    [
        "raise AttributeError(\"'NoneType' object has no attribute 'glGetError'\")",
        "raise ImportError('Cannot initialize a EGL device display.')",
        "raise RuntimeError('MUJOCO_GL must be one of egl')",
    ],
)
def test_a_missing_gl_library_is_told_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, suite: str
) -> None:
    fake_dm_control(monkeypatch, tmp_path, suite)
    with pytest.raises(AimeError, match=r"cannot render \(MUJOCO_GL=egl.*apt-get install libegl1") as refusal:
        split_name("dmc:cartpole_swingup")
    assert "\n" not in str(refusal.value)


def test_a_missing_dm_control_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "version", lambda name: "3.2.0")
    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(AimeError, match=r"cannot be imported.*pip install 'aime\[dmc\]'"):
        split_name("dmc:cartpole_swingup")


def test_a_mujoco_that_breaks_dm_control_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "version", lambda name: "4.0.0")
    with pytest.raises(AimeError, match=r"mujoco 4\.0\.0 .*expected <4"):
        split_name("dmc:cartpole_swingup")


def test_a_probe_that_hangs_is_a_problem() -> None:
    assert "within 0.01 s" in (rendering_problem(timeout=0.01) or "")


@pytest.mark.usefixtures("rendering")
@pytest.mark.usefixtures("rendering")
@pytest.mark.skipif(find_spec("triton") is None, reason="this torch comes without triton")
def test_a_process_that_has_rendered_can_load_the_gpu_compiler() -> None:
    program = (
        "import torch; from aime.io.collect.environment import ControlSuite;"
        "ControlSuite('cartpole', 'swingup', action_repeat=2, image_size=64, camera=0).reset(0); import triton"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_names_are_split_where_the_task_begins() -> None:
    assert split_name("dmc:ball_in_cup_catch") == ("ball_in_cup", "catch")
    assert split_name("dmc:cartpole_swingup_sparse") == ("cartpole", "swingup_sparse")
    with pytest.raises(AimeError, match=r"no such task; choose one of .*dmc:cartpole_swingup"):
        split_name("dmc:cartpole_swing")


@pytest.mark.usefixtures("rendering")
def test_a_recorded_step_is_the_simulator_s_for_the_action_repeat() -> None:
    from dm_control import suite

    recording = Recording("reacher", "easy", 5, "random", 3, "none", action_repeat=4, image_size=32, camera=0)
    episode = record_episode(recording.build(), recording, 2)
    assert episode.pixels.shape == (5, 32, 32, 3) and episode.pixels.std() > 5
    assert episode.state is not None
    reference = suite.load("reacher", "easy", task_kwargs={"random": 0})
    with reference.physics.reset_context():
        reference.physics.data.qpos[:] = episode.state[0, :2]
        reference.physics.data.qvel[:] = episode.state[0, 2:]
    for step in range(1, 5):
        reference.physics.set_control(episode.action[step - 1])
        for _ in range(4):
            reference.physics.step(reference._n_sub_steps)
        moved = np.concatenate([reference.physics.data.qpos, reference.physics.data.qvel])
        np.testing.assert_allclose(episode.state[step], moved, atol=2e-4)


@pytest.mark.usefixtures("rendering")
def test_an_episode_of_the_suite_does_not_remember_the_last_one() -> None:
    recording = Recording("cartpole", "swingup", 4, "smooth", 0, "dynamic", action_repeat=4, image_size=16, camera=0)
    used = recording.build()
    record_episode(used, recording, 5)
    first, second = record_episode(used, recording, 1), record_episode(recording.build(), recording, 1)
    for name in ("pixels", "state", "action", "reward"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.usefixtures("rendering")
def test_one_plays_in_an_environment_with_the_pictures_that_it_is_recorded_with() -> None:
    recording = Recording("cartpole", "swingup", 4, "smooth", 0, "dynamic", action_repeat=4, image_size=16, camera=0)
    world, plain = Distracted(recording), Distracted(replace(recording, distractor="none"))
    assert read_state_names(world.notes(), 4) == {"position": 2, "velocity": 2}
    action = np.array([0.5], np.float32)
    shown = [[world.reset(seed), world.step(action)] for seed in (3, 3, 4)]
    bare = [plain.reset(3), plain.step(action)]
    for first, again, other, without in zip(*shown, bare, strict=True):
        np.testing.assert_array_equal(first.pixels, again.pixels)
        np.testing.assert_array_equal(first.state, without.state)
        assert (first.pixels != without.pixels).mean() > 0.5 and (first.pixels != other.pixels).mean() > 0.5
    assert world.step_seconds == pytest.approx(0.04)


@pytest.mark.usefixtures("rendering")
@pytest.mark.parametrize(("domain", "task", "steps"), [("cartpole", "swingup", 110), ("reacher", "easy", 25)])
def test_the_controllers_reach_their_goals_and_what_is_medium_does_so_less(domain: str, task: str, steps: int) -> None:
    def ending(policy: Policy) -> float:
        recording = Recording(domain, task, steps, policy, 0, "none", action_repeat=4, image_size=16, camera=0)
        world = recording.build()
        return float(np.mean([record_episode(world, recording, number).reward[-10:] for number in range(3)]))

    assert ending("expert") > 0.85 * 4
    assert ending("smooth") < ending("expert") and ending("medium") < ending("expert")


@pytest.mark.usefixtures("rendering")
def test_a_camera_that_is_not_there_is_refused() -> None:
    with pytest.raises(AimeError, match="cartpole_swingup has 2; choose one from 0 to 1"):
        ControlSuite("cartpole", "swingup", action_repeat=1, image_size=16, camera=2)


@pytest.mark.usefixtures("rendering")
@pytest.mark.parametrize(
    ("domain", "task", "bodies"),
    [("cartpole", "swingup", 0.005), ("reacher", "easy", 0.01), ("cheetah", "run", 0.02), ("walker", "walk", 0.02)],
)
def test_the_background_is_sky_and_floor(domain: str, task: str, bodies: float) -> None:
    world = ControlSuite(domain, task, action_repeat=4, image_size=64, camera=0, segment=True)
    arrival = world.reset(1)
    share = arrival.background
    assert share is not None and share.shape == (64, 64)
    foreground = share == 0
    assert bodies < foreground.mean() < 0.3
    # the bodies of these tasks are painted in warm colours, and sky and floor are blue
    warmth = arrival.pixels[..., 0].astype(int) - arrival.pixels[..., 2]
    assert warmth[foreground].mean() > 20 > 0 > warmth[share == 1].mean()
