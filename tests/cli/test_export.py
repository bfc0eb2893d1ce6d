"""Data sets go out and come in again: `aime export`, then `aime import`, as a user types them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.conftest import synthetic_episode

from aime.cli.main import main
from aime.data import Dataset, open_dataset, write_shard
from aime.data.action_scale import ActionScale

SCALE = ActionScale((-2.0, 0.0), (2.0, 10.0))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    episodes = [synthetic_episode(length, seed, size=32) for seed, length in enumerate((12, 7))]
    write_shard(tmp_path / "data" / "0.h5", episodes, {"task": "square", **SCALE.attributes()})
    return tmp_path / "data"


def there_and_back(kind: str, data: Path, out: Path, *flags: str) -> Dataset:
    assert main(["export", kind, str(data), "--out", str(out / "export"), *flags]) == 0
    again = ["import", kind, str(out / "export"), "--out", str(out / "import"), "--image-size", "32", "--workers", "1"]
    assert main(again) == 0
    return open_dataset(out / "import")


def in_source_units(dataset: Dataset) -> list[np.ndarray]:
    scale = ActionScale.of_attributes(dataset.attributes)
    assert scale is not None
    return [scale.to_source(episode.action) for episode in dataset]


def check_numbers(found: Dataset, data: Path, last_action: bool = True, first_reward: bool = True) -> None:
    original = open_dataset(data)
    assert found.lengths.tolist() == original.lengths.tolist()
    for action, truth in zip(in_source_units(found), in_source_units(original), strict=True):
        end = None if last_action else -1
        np.testing.assert_allclose(action[:end], truth[:end], atol=1e-4)
    for episode, truth_episode in zip(found, original, strict=True):
        np.testing.assert_allclose(np.array(episode.state), np.array(truth_episode.state), rtol=1e-6)
        start = 0 if first_reward else 1
        np.testing.assert_allclose(episode.reward[start:], truth_episode.reward[start:], rtol=1e-6)
        np.testing.assert_array_equal(episode.terminated, truth_episode.terminated)


def test_stable_worldmodel_and_back(data: Path, tmp_path: Path) -> None:
    found = there_and_back("stable-worldmodel", data, tmp_path)
    check_numbers(found, data)
    for episode, truth in zip(found, open_dataset(data), strict=True):
        np.testing.assert_array_equal(episode.pixels, truth.pixels)
    with h5py.File(tmp_path / "export") as file:
        assert np.nanmax(file["action"][:, 1]) > 1, "actions are in the source's units"


def test_a_folder_of_pictures_and_back(data: Path, tmp_path: Path) -> None:
    found = there_and_back("folder", data, tmp_path, "--pictures")
    check_numbers(found, data)
    for episode, truth in zip(found, open_dataset(data), strict=True):
        np.testing.assert_array_equal(episode.pixels, truth.pixels)


@pytest.mark.parametrize("kind", ["folder", "lerobot"])
def test_films_and_back(kind: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av", reason="films need PyAV: pip install 'aime[import]'")
    pytest.importorskip("pyarrow", reason="tables need pyarrow: pip install 'aime[import]'")
    found = there_and_back(kind, data, tmp_path)
    assert ("repeats the previous one" in capsys.readouterr().out) == (kind == "lerobot")
    check_numbers(found, data, last_action=kind == "folder", first_reward=kind == "folder")
    for episode, truth in zip(found, open_dataset(data), strict=True):
        assert np.abs(episode.pixels.astype(int) - truth.pixels).mean() < 8


NAMES = {
    "action_names": json.dumps({"shoulder": 1, "grip": 1}),
    "state_names": json.dumps({"position": 2, "speed, filtered": 1}),
}


@pytest.mark.parametrize(("kind", "rate"), [("folder", 25.0), ("folder", 29.97), ("lerobot", 25.0), ("lerobot", 12.5)])
def test_the_frame_rate_and_all_names_survive(kind: str, rate: float, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="films need PyAV: pip install 'aime[import]'")
    pytest.importorskip("pyarrow", reason="tables need pyarrow: pip install 'aime[import]'")
    data = tmp_path / "data"
    episodes = [synthetic_episode(length, seed, size=32, state_width=3) for seed, length in enumerate((12, 7))]
    write_shard(data / "0.h5", episodes, {"fps": rate, **NAMES, **SCALE.attributes()})
    found = there_and_back(kind, data, tmp_path)
    check_numbers(found, data, last_action=kind == "folder", first_reward=kind == "folder")
    assert found.attributes["fps"] == pytest.approx(rate, rel=1e-3)
    assert {name: found.attributes[name] for name in NAMES} == NAMES
    again = there_and_back(kind, tmp_path / "import", tmp_path / "again")
    assert found.attributes["fps"] == again.attributes["fps"]


def test_an_unknown_rate_is_said(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av", reason="films need PyAV: pip install 'aime[import]'")
    there_and_back("folder", data, tmp_path)
    assert "the data has no frame rate: the videos have 10 frames per second" in capsys.readouterr().out


def test_a_last_frame_without_a_state_survives(tmp_path: Path) -> None:
    episode = synthetic_episode(9, 0, size=32)
    assert episode.state is not None
    episode.state[-1] = np.nan
    episode.action[-1] = np.nan
    write_shard(tmp_path / "data" / "0.h5", [episode], SCALE.attributes())
    found = there_and_back("folder", tmp_path / "data", tmp_path, "--pictures").read(0)
    np.testing.assert_allclose(np.array(found.state), episode.state, rtol=1e-6)
    np.testing.assert_array_equal(found.pixels, episode.pixels)


def test_video_alone_and_back(tmp_path: Path) -> None:
    episode = synthetic_episode(6, 0, size=32, state_width=None)
    unknown = np.full((6, 1), np.nan, np.float32)
    write_shard(tmp_path / "data" / "0.h5", [replace(episode, action=unknown, reward=unknown[:, 0])])
    found = there_and_back("folder", tmp_path / "data", tmp_path, "--pictures")
    assert np.isnan(found.read(0).action).all() and np.isnan(found.read(0).reward).all()
    np.testing.assert_array_equal(found.read(0).pixels, episode.pixels)


def test_nothing_is_overwritten_or_left_half_done(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.write_text("precious")
    assert main(["export", "folder", str(data), "--out", str(out), "--pictures"]) == 2
    assert "exists already" in capsys.readouterr().err and out.read_text() == "precious"
    monkeypatch.setattr(Dataset, "read", lambda *arguments: 1 / 0)
    for kind in ("stable-worldmodel", "folder"):
        assert main(["export", kind, str(data), "--out", str(tmp_path / "half")]) != 0
        assert "ZeroDivisionError" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"data", "out"}
