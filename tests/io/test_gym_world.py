from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from aime.cli import collect as command
from aime.data import open_dataset
from aime.data.action_scale import ActionScale
from aime.data.episodes import Episode
from aime.data.state_names import read_state_names
from aime.errors import AimeError
from aime.io.collect.collect import collect
from aime.io.collect.gym_world import GymRecording, GymWorld, check_known
from aime.io.collect.plan import plan
from aime.io.collect.recording import Recording, record_episode

ROOT = Path(__file__).parents[2]
PAINTED = "tests.io.painted:painted/Painted-v0"
BUTTONS = "tests.io.painted:painted/Buttons-v0"
RECORDING = GymRecording(PAINTED, length=6, policy="random", seed=0, action_repeat=1, image_size=16)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environments are found by this module's neighbour's name, in recording processes too."""
    monkeypatch.syspath_prepend(str(ROOT))


def episodes(recording: GymRecording, count: int = 8) -> list[Episode]:
    world = recording.build()
    return [record_episode(world, recording, number) for number in range(count)]


def test_a_box_of_actions_is_scaled_to_its_range() -> None:
    for episode in episodes(RECORDING):
        assert episode.state is not None and episode.state.dtype == np.float32
        amounts = 2 * (episode.action[:-1, 0] + 1) + episode.action[:-1, 1]
        np.testing.assert_allclose(np.diff(episode.state[:, 0]), amounts, atol=1e-5)
        np.testing.assert_allclose(episode.reward[1:], amounts, atol=1e-5)
        np.testing.assert_array_equal(episode.pixels[:, 8, 8, 0], episode.state[:, 0].astype(int))
        assert episode.pixels.shape[1:] == (16, 16, 3)


def test_an_end_is_recorded_as_one_and_the_registered_time_limit_is_not_there() -> None:
    recorded = episodes(RECORDING)
    odd = [bool(episode.state is not None and episode.state[0, 0] % 2) for episode in recorded]
    assert any(odd) and not all(odd)
    for episode, short in zip(recorded, odd, strict=True):
        assert len(episode) == (4 if short else 6)
        assert episode.terminated.tolist() == [False] * (len(episode) - 1) + [short]


@pytest.mark.parametrize("policy", ["random", "smooth"])
def test_discrete_actions_are_one_of_n_and_what_was_done_is_recorded(policy: str) -> None:
    recording = replace(RECORDING, environment=BUTTONS, policy=policy)  # type: ignore[arg-type]
    for episode in episodes(recording):
        assert episode.state is None
        taken = episode.action[:-1]
        assert taken.shape[1] == 3 and (np.sort(taken, axis=1) == [-1, -1, 1]).all()
        np.testing.assert_array_equal(episode.reward[1:], 3 + taken.argmax(axis=1))


def test_an_episode_that_is_cut_short_by_the_environment_has_not_ended_for_good() -> None:
    recorded = episodes(replace(RECORDING, environment=BUTTONS))
    lengths = {(len(episode), bool(episode.terminated.any())) for episode in recorded}
    assert lengths == {(4, True), (5, False)}


def test_an_action_is_repeated_and_its_rewards_are_summed() -> None:
    for episode in episodes(replace(RECORDING, action_repeat=2)):
        assert episode.state is not None
        ended = int(episode.state[-1, 1])
        assert ended == (3 if episode.terminated[-1] else 2 * (len(episode) - 1))
        np.testing.assert_allclose(np.diff(episode.state[:, 0]), episode.reward[1:], atol=1e-4)


def test_time_passes_at_the_environment_s_frame_rate() -> None:
    assert replace(RECORDING, action_repeat=3).build().step_seconds == pytest.approx(0.3)


def test_large_frames_shrink_without_losing_thin_things() -> None:
    world = GymWorld(PAINTED, 1, 16)
    frame = np.zeros((480, 640, 3), np.uint8)
    frame[:, 333] = 255
    world._environment.unwrapped.render = lambda: frame
    world._frame_shape = frame.shape
    small = world.step(np.zeros(2, np.float32)).pixels
    # a line one pixel wide out of 640 is a fortieth of a pixel of 16
    assert small.sum(axis=1).mean() == pytest.approx(255 / 40, rel=0.3)


def test_recording_in_processes_goes_on_where_it_stopped(tmp_path: Path) -> None:
    quiet = Console(quiet=True)
    assert collect([RECORDING], tmp_path, 3, 1, console=quiet) == 3 * RECORDING.length
    dataset = open_dataset(tmp_path)
    assert dataset.attributes["environment"] == f"gym:{PAINTED}" and "gymnasium_version" in dataset.attributes
    assert dataset.action_scale == ActionScale((0.0, -1.0), (4.0, 1.0))
    assert read_state_names(dataset.attributes, dataset.state_width) == {"observation": dataset.state_width}
    for number, expected in enumerate(episodes(RECORDING, 3)):
        np.testing.assert_array_equal(dataset.read(number).action, expected.action)
        np.testing.assert_array_equal(dataset.read(number).pixels, expected.pixels)
    assert collect([RECORDING], tmp_path, 3, 1, console=quiet) == 0
    with pytest.raises(AimeError, match=r"recorded with environment gym:.*Painted-v0; expected dmc:cartpole_swingup"):
        plan(Recording("cartpole", "swingup", 6, "random", 0, "none", 1, 16, 0), tmp_path, 3, 1)


def test_the_command_records_an_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = f"gym:{BUTTONS} --out {tmp_path} --episodes 2 --length 5 --image-size 16 --workers 1 --policy smooth"
    assert command.main(flags.split()) == 0
    out, errors = capsys.readouterr()
    assert f"{tmp_path}: 2 episodes" in out
    assert "painted_Buttons-v0: 16x16, action repeat 1, policy smooth, seed 0" in " ".join(errors.split())
    dataset = open_dataset(tmp_path)
    assert dataset.action_width == 3 and dataset.action_scale is None and "state_names" not in dataset.attributes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("gym:NoSuch-v0", "gymnasium finds no such environment"),
        ("gym:no.such.module:Env-v0", "gymnasium finds no such environment.*no.such|gymnasium finds no such.*'no'"),
        (f"gym:{PAINTED} --policy expert", "has no controller; choose random or smooth"),
        (f"gym:{PAINTED} --distractor static", "--distractor is for dmc:"),
        (f"gym:{PAINTED} --camera 0", "--camera is for dmc:"),
        ("gym:", "expected dmc:DOMAIN_TASK or gym:ENV_ID"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_anything_runs(tmp_path: Path, arguments: str, message: str) -> None:
    with pytest.raises(AimeError, match=message) as refusal:
        command.main([*arguments.split(), "--out", str(tmp_path / "out")])
    assert "\n" not in str(refusal.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "message"),
    [("Unbounded", "its actions are Box.*expected a Box of floats with bounds"), ("Blind", "renders NoneType")],
)
def test_an_environment_that_does_not_fit_is_refused_in_one_line(kind: str, message: str) -> None:
    with pytest.raises(AimeError, match=message) as refusal:
        GymWorld(f"tests.io.painted:painted/{kind}-v0", 1, 16)
    assert "\n" not in str(refusal.value)


def test_a_missing_gymnasium_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(AimeError, match=r"pip install 'aime\[gym\]'"):
        check_known("CartPole-v1")


def odd(name: str) -> GymRecording:
    environment = f"tests.io.odd_worlds:odd/{name}-v0"
    return GymRecording(environment, length=8, policy="random", seed=0, action_repeat=1, image_size=16)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("LargestBounds", "expected a Box of floats with bounds"),
        ("OneLargestBound", "expected a Box of floats with bounds"),
        ("NoBounds", "expected a Box of floats with bounds"),
        ("Integers", "expected a Box of floats with bounds"),
        ("Several", "expected a Box of floats with bounds, or Discrete"),
        ("NanReward", "a reward is nan; expected a finite number"),
        ("NoReward", "a reward is None; expected a finite number"),
        ("LargeObservation", r"observation\[2\] is 1e\+300; expected numbers that fit float32"),
        ("NanObservation", r"observation\[2\] is nan"),
        ("Fails", r"its step fails \(RuntimeError: joint limit\)"),
        ("AnotherSize", r"a frame is \[50, 70\] after \[64, 96\]"),
        ("Rgba", r"renders uint8 \[64, 96, 4\]"),
        ("NoFrame", "renders NoneType"),
    ],
)
def test_what_an_environment_does_that_cannot_be_recorded_is_one_line(name: str, message: str) -> None:
    with pytest.raises(AimeError, match=message) as caught:
        episodes(odd(name), 1)
    assert str(caught.value).startswith("gym:tests.io.odd_worlds:odd/")
    assert "\n" not in str(caught.value)


def test_a_reward_in_an_array_is_a_number() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (episode,) = episodes(odd("ArrayReward"), 1)
    assert episode.reward[1:].tolist() == [1.0] * 7


def test_discrete_actions_that_start_at_five_and_boxes_of_any_shape_reach_the_environment_in_its_units() -> None:
    for name in ("FromFive", "Float64"):
        world = odd(name).build()
        episode = record_episode(world, odd(name), 0)
        done = world._environment.unwrapped.done
        if name == "FromFive":
            assert done == (5 + episode.action[:-1].argmax(axis=1)).tolist()
        else:
            low, high = np.array([-2.0, 0, 1, -1]), np.array([5.0, 1, 2, 1])
            expected = low + (episode.action[:-1].astype(float) + 1) / 2 * (high - low)
            np.testing.assert_allclose(np.stack(done).reshape(-1, 4), expected, rtol=1e-12)
            assert np.stack(done).shape[1:] == (2, 2)


def test_an_environment_may_write_into_its_observations_and_into_actions() -> None:
    (episode,) = episodes(replace(odd("OneBuffer"), action_repeat=2), 1)
    assert episode.state is not None
    assert episode.state[:, 0].tolist() == [2 * step for step in range(len(episode))]
    np.testing.assert_allclose(episode.reward[1:], 2 * episode.action[:-1, 0], atol=1e-6)
