"""Rates, names and ranges survive export and import; what a kind does not read or heed is said."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.io.importers.encoding import tensor
from tests.io.importers.test_hdf5_kinds import complaint, frames, run, steps, write_minari, write_worldmodel
from tests.io.importers.test_last_row import write_rlds

from aime.cli.main import main
from aime.data import Episode, open_dataset, write_shard
from aime.data.action_scale import ActionScale
from aime.data.shards import Attribute

NOTED: dict[str, Attribute] = {
    "fps": 12.5,
    "task": "reach",
    "state_names": '{"angle": 1, "speed": 2}',
    "action_names": '{"hip": 1, "knee": 1}',
    "action_low": "[-2.0, 0.0]",
    "action_high": "[2.0, 10.0]",
}


def test_stable_worldmodel_and_back(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    action = random.uniform(-0.5, 0.5, (7, 2)).astype(np.float32)  # less than the range, which must not shrink to it
    action[-1] = np.nan
    reward = np.array([np.nan, 0, 0, 1, 0, 0, 2], np.float32)
    ends = np.arange(7) == 6
    state = random.normal(size=(7, 3)).astype(np.float32)
    write_shard(tmp_path / "data/0.h5", [Episode(frames(7, 0), action, reward, ends, state)], NOTED)
    assert main(["export", "stable-worldmodel", str(tmp_path / "data"), "--out", str(tmp_path / "a.h5")]) == 0
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_allclose(file["action"][:-1], action[:-1] * [2, 5] + [0, 5], rtol=1e-5)
    assert run("stable-worldmodel", tmp_path / "a.h5", tmp_path / "out") == 0
    again = open_dataset(tmp_path / "out")
    assert {name: again.attributes[name] for name in NOTED} == NOTED
    (episode,) = again
    np.testing.assert_allclose(episode.action, action, atol=1e-6)
    np.testing.assert_array_equal(episode.reward, reward)
    np.testing.assert_array_equal(episode.state, state)
    np.testing.assert_array_equal(episode.terminated, ends)


def test_a_quantity_that_happens_to_be_whole_stays_one(tmp_path: Path) -> None:
    action = np.array([[0], [1], [0], [1]], np.float32)
    episode = Episode(frames(4, 0), action, np.zeros(4, np.float32), np.zeros(4, bool))
    write_shard(tmp_path / "data/0.h5", [episode])
    assert main(["export", "stable-worldmodel", str(tmp_path / "data"), "--out", str(tmp_path / "a.h5")]) == 0
    assert run("stable-worldmodel", tmp_path / "a.h5", tmp_path / "out") == 0
    np.testing.assert_array_equal(open_dataset(tmp_path / "out").read(0).action, action)


def test_names_of_actions_and_a_rate_that_the_user_knows(tmp_path: Path) -> None:
    box = {"type": "Box", "low": [-1, -1], "high": [1, 1], "shape": [2]}
    space = {"type": "Dict", "subspaces": {"arm": box, "grip": {"type": "Discrete", "n": 2}}}
    fields = {"arm": np.zeros((3, 2), np.float32), "grip": np.array([0, 1, 0])}
    write_minari(tmp_path / "minari", space, [fields])
    assert run("minari", tmp_path / "minari", tmp_path / "a", "--fps", "20") == 0
    attributes = open_dataset(tmp_path / "a").attributes
    assert json.loads(str(attributes["action_names"])) == {"arm": 2, "grip": 2} and attributes["fps"] == 20
    declared = {
        "action": {"featuresDict": {"features": {"arm": tensor((2,), "float32"), "stop": tensor((1,), "int64")}}}
    }
    values = {"action/arm": np.zeros((3, 2)), "action/stop": np.array([0, 1, 0])}
    assert run("dmc-vb", write_rlds(tmp_path / "rlds", values, declared), tmp_path / "b", "--fps", "3") == 0
    attributes = open_dataset(tmp_path / "b").attributes
    assert json.loads(str(attributes["action_names"])) == {"arm": 2, "stop": 2} and attributes["fps"] == 3


def test_fields_that_are_not_taken_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_worldmodel(tmp_path / "a.h5", [6])
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["qpos"], file["score"], file["step_idx"] = np.zeros((6, 2)), np.zeros(6), np.arange(6)
    assert run("stable-worldmodel", tmp_path / "a.h5", tmp_path / "out") == 0
    assert "fields not imported: qpos, score\n" in capsys.readouterr().out
    declared = {"action": tensor((1,), "float32"), "language": {"text": {}}, "depth": tensor((16, 16, 1), "float32")}
    source = write_rlds(tmp_path / "rlds", {"action": np.zeros(3)}, declared)
    assert run("dmc-vb", source, tmp_path / "b") == 0
    assert "features not imported: depth, language\n" in capsys.readouterr().out


def test_success_where_there_is_no_reward(tmp_path: Path) -> None:
    write_worldmodel(tmp_path / "a.h5", [6])
    success = np.array([np.nan, 0, 0, 0, 0, 1])
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["reward"][:], file["success"] = np.nan, success
    assert run("stable-worldmodel", tmp_path / "a.h5", tmp_path / "out") == 0
    np.testing.assert_array_equal(open_dataset(tmp_path / "out").read(0).reward, success)


@pytest.mark.parametrize("kind", ["minari", "dmc-vb", "stable-worldmodel", "v-d4rl"])
@pytest.mark.parametrize(
    "flags", [("--every", "2"), ("--time-column", "t"), ("--state-columns", "a"), ("--depth-range", "0", "9")]
)
def test_flags_that_a_kind_does_not_heed_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, flags: tuple[str, ...]
) -> None:
    source = tmp_path / "source"
    if kind == "minari":
        write_minari(source, {"type": "Discrete", "n": 3}, [np.array([0, 1, 2])])
    elif kind == "dmc-vb":
        write_rlds(source, {"action": np.zeros(3)}, {"action": tensor((1,), "float32")})
    else:
        source.mkdir()
        write_worldmodel(source / "a.h5", [6])
        np.savez(source / "e.npz", image=frames(5, 0), **steps(5, 0))  # type: ignore[arg-type]
    message = complaint(capsys, kind, source, tmp_path / "out", *flags)
    assert f"{flags[0]} does not apply to data sets of this kind" in message


@pytest.mark.parametrize(
    ("kind", "file", "words"),
    [
        ("stable-worldmodel", "_versions/1.manifest", "is in the Lance format, which is not supported"),
        ("stable-worldmodel", "data.lance/x", "is in the Lance format, which is not supported"),
        ("stable-worldmodel", "ep_len.npz", "is in the folder or the video format, which is not supported"),
        ("stable-worldmodel", "notes.txt", "has no file of stable-worldmodel"),
        ("dmc-vb", "a-train.array_record-00000-of-00001", "has array_record files, expected tfrecord"),
    ],
)
def test_formats_that_are_not_read_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, file: str, words: str
) -> None:
    path = tmp_path / "source" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    assert words in complaint(capsys, kind, tmp_path / "source", tmp_path / "out")


def test_a_range_of_another_width_is_not_taken(tmp_path: Path) -> None:
    write_worldmodel(tmp_path / "a.h5", [6])
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.attrs["source_action_low"], file.attrs["source_action_high"] = "[-9]", "[9]"
    assert run("stable-worldmodel", tmp_path / "a.h5", tmp_path / "out") == 0
    scale = ActionScale.of_attributes(open_dataset(tmp_path / "out").attributes)
    assert scale is not None and scale.width == 2 and max(scale.high) < 9
