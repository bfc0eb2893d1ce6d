"""The kinds that lie in HDF5 and NPZ files: stable-worldmodel, V-D4RL, Minari."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from aime.cli.main import main
from aime.data import open_dataset
from aime.data.action_scale import ActionScale

SIZE = 16


def run(kind: str, source: Path, out: Path, *flags: object) -> int:
    fixed = ["--out", str(out), "--image-size", str(SIZE), "--workers", "1"]
    return main(["import", kind, str(source), *fixed, *map(str, flags)])


def complaint(capsys: pytest.CaptureFixture[str], kind: str, source: Path, out: Path, *flags: object) -> str:
    assert run(kind, source, out, *flags) == 2
    return capsys.readouterr().err.splitlines()[-1]


def frames(length: int, seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (length, size, size, 3), dtype=np.uint8)


# stable-worldmodel


def write_worldmodel(path: Path, lengths: list[int], size: int = SIZE, high: float = 5.0) -> dict[str, np.ndarray]:
    total = sum(lengths)
    random = np.random.default_rng(total)
    fields = {
        "pixels": frames(total, total, size),
        "action": random.uniform(-high, high, (total, 2)).astype(np.float32),
        "reward": random.normal(size=total).astype(np.float32),
        "terminated": np.zeros(total, bool),
        "proprio": random.normal(size=(total, 3)),
        "ep_len": np.array(lengths, np.int32),
        "ep_offset": np.cumsum([0, *lengths[:-1]]),
    }
    ends = np.cumsum(lengths) - 1
    fields["action"][ends], fields["reward"][fields["ep_offset"]] = np.nan, np.nan
    with h5py.File(path, "w") as file:
        for name, values in fields.items():
            file[name] = values
    return fields


def test_stable_worldmodel(tmp_path: Path) -> None:
    truth = [write_worldmodel(tmp_path / f"{name}.h5", lengths) for name, lengths in (("a9", [6, 3]), ("a10", [5]))]
    (tmp_path / "source").mkdir()
    for name in ("a9", "a10"):
        (tmp_path / f"{name}.h5").rename(tmp_path / "source" / f"{name}.h5")
    assert run("stable-worldmodel", tmp_path / "source", tmp_path / "out") == 0
    dataset = open_dataset(tmp_path / "out")
    assert dataset.lengths.tolist() == [6, 3, 5]
    whole = {name: np.concatenate([part[name] for part in truth]) for name in truth[0]}
    stored = list(dataset)
    np.testing.assert_array_equal(np.concatenate([e.pixels for e in stored]), whole["pixels"])
    np.testing.assert_array_equal(np.concatenate([e.reward for e in stored]), whole["reward"])
    np.testing.assert_allclose(np.concatenate([np.array(e.state) for e in stored]), whole["proprio"], rtol=1e-6)
    scale = ActionScale.of_attributes(dataset.attributes)
    assert scale is not None
    back = scale.to_source(np.concatenate([e.action for e in stored]))
    np.testing.assert_allclose(back, whole["action"], atol=1e-5)


def test_actions_that_are_in_range_stay_as_they_are(tmp_path: Path) -> None:
    truth = write_worldmodel(tmp_path / "a.h5", [6], high=0.5)
    assert run("stable-worldmodel", tmp_path / "a.h5", tmp_path / "out") == 0
    np.testing.assert_allclose(open_dataset(tmp_path / "out").read(0).action, truth["action"], atol=1e-7)


def test_stable_worldmodel_that_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "a.h5", tmp_path / "out"
    write_worldmodel(path, [6, 3])
    with h5py.File(path, "r+") as file:
        file["ep_len"][1] = 30
    assert "'ep_len' and 'ep_offset' do not fit 9 frames" in complaint(capsys, "stable-worldmodel", path, out)
    with h5py.File(path, "r+") as file:
        file["ep_len"][1] = 3
        del file["action"]
    assert "has no field 'action'" in complaint(capsys, "stable-worldmodel", path, out)
    assert run("stable-worldmodel", path, out, "--no-actions") == 0
    with h5py.File(tmp_path / "elsewhere.h5", "w") as file:
        file["secret"] = np.zeros((9, 2), np.float32)
    with h5py.File(path, "r+") as file:
        file["action"] = h5py.ExternalLink(str(tmp_path / "elsewhere.h5"), "secret")
    assert "'action' lies in another file" in complaint(capsys, "stable-worldmodel", path, tmp_path / "link")
    path.write_bytes(path.read_bytes()[:3000])
    assert "cannot be read" in complaint(capsys, "stable-worldmodel", path, tmp_path / "cut")


def test_a_field_that_claims_to_be_enormous_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.h5"
    write_worldmodel(path, [6])
    with h5py.File(path, "r+") as file:
        del file["ep_len"]
        file.create_dataset("ep_len", (2**40,), "int64", chunks=(1024,))
    assert "has 0 of 1073741824 chunks" in complaint(capsys, "stable-worldmodel", path, tmp_path / "out")


# V-D4RL


def steps(length: int, seed: int) -> dict[str, np.ndarray]:
    """As Dreamer and dm_env have it: the action of a row led to its frame."""
    random = np.random.default_rng(seed)
    action = random.uniform(-1, 1, (length, 3)).astype(np.float32)
    action[0] = 0
    return {
        "action": action,
        "reward": random.uniform(size=length).astype(np.float32),
        "discount": np.ones(length, np.float32),
    }


def check_v_d4rl(out: Path, pixels: list[np.ndarray], truth: list[dict[str, np.ndarray]]) -> None:
    for episode, image, known in zip(open_dataset(out), pixels, truth, strict=True):
        np.testing.assert_array_equal(episode.pixels, image)
        np.testing.assert_allclose(episode.action[:-1], known["action"][1:], atol=1e-6)
        assert np.isnan(episode.action[-1]).all() and np.isnan(episode.reward[0])
        np.testing.assert_array_equal(episode.reward[1:], known["reward"][1:])
        np.testing.assert_array_equal(episode.terminated, known["discount"] == 0)


def test_v_d4rl_npz(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    pixels, truth = [frames(length, length) for length in (5, 7)], [steps(5, 0), steps(7, 1)]
    truth[1]["discount"][-1] = 0
    for number, (image, known) in enumerate(zip(pixels, truth, strict=True)):
        np.savez_compressed(source / f"episode-{number}.npz", image=image, **known)  # type: ignore[arg-type]
    assert run("v-d4rl", source, tmp_path / "out") == 0
    check_v_d4rl(tmp_path / "out", pixels, truth)
    (source / "episode-2.npz").write_bytes(b"PK\x03\x04")
    assert "episode-2.npz: has no readable array 'image'" in complaint(capsys, "v-d4rl", source, tmp_path / "bad")


def test_v_d4rl_hdf5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels, truth = [frames(length, length) for length in (5, 7)], [steps(5, 0), steps(7, 1)]
    path = tmp_path / "shard_1.hdf5"
    kinds = np.concatenate([[0, *[1] * (len(image) - 2), 2] for image in pixels]).astype(np.float64)
    with h5py.File(path, "w") as file:
        file["observation"] = np.concatenate(pixels).transpose(0, 3, 1, 2)
        file["step_type"] = kinds
        for name in truth[0]:
            file[name] = np.concatenate([known[name] for known in truth])
    assert run("v-d4rl", tmp_path, tmp_path / "out") == 0
    check_v_d4rl(tmp_path / "out", pixels, truth)
    with h5py.File(path, "r+") as file:
        file["step_type"][0] = 1
    assert "'step_type' has no valid episode starts" in complaint(capsys, "v-d4rl", path, tmp_path / "bad")


# Minari


def write_minari(
    place: Path, space: Mapping[str, object] | None, actions: Sequence[np.ndarray | Mapping[str, np.ndarray]]
) -> list[dict[str, np.ndarray]]:
    (place / "data").mkdir(parents=True)
    declared = {} if space is None else {"action_space": json.dumps(space)}
    (place / "data" / "metadata.json").write_text(json.dumps({"data_format": "hdf5", **declared}))
    truth = []
    with h5py.File(place / "data" / "main_data.hdf5", "w") as file:
        for number, action in enumerate(actions):
            if isinstance(action, np.ndarray):
                parts = {"actions": action}
            else:
                parts = {f"actions/{name}": values for name, values in action.items()}
            length = len(next(iter(parts.values())))
            random = np.random.default_rng(number)
            known = {
                "observations/camera": frames(length + 1, number),
                "observations/speed": random.normal(size=(length + 1, 2)),
                "rewards": random.normal(size=length),
                "terminations": np.arange(length) == length - 1,
            }
            for name, values in (known | parts).items():
                file[f"episode_{number}/{name}"] = values
            truth.append(known | parts)
    return truth


def test_minari(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    actions = [random.uniform([-2, 0], [2, 10], (length, 2)) for length in (4, 6, *[3] * 9)]
    space = {"type": "Box", "dtype": "float64", "shape": [2], "low": [-2.0, 0.0], "high": [2.0, 10.0]}
    truth = write_minari(tmp_path / "source", space, actions)
    with h5py.File(tmp_path / "source" / "data" / "main_data.hdf5", "r+") as file:
        file["episode_0/infos/time"] = np.arange(4.0)
    assert run("minari", tmp_path / "source", tmp_path / "out") == 0
    assert "fields not imported: infos\n" in capsys.readouterr().out
    dataset = open_dataset(tmp_path / "out")
    assert json.loads(str(dataset.attributes["state_names"])) == {"speed": 2}
    for episode, known in zip(dataset, truth, strict=True):
        np.testing.assert_array_equal(episode.pixels, known["observations/camera"])
        np.testing.assert_allclose(np.array(episode.state), known["observations/speed"], rtol=1e-6)
        np.testing.assert_allclose(episode.action[:-1], known["actions"] / [2, 5] - [0, 1], atol=1e-5)
        assert np.isnan(episode.action[-1]).all() and np.isnan(episode.reward[0])
        np.testing.assert_allclose(episode.reward[1:], known["rewards"], rtol=1e-6)
        assert episode.terminated.tolist() == [False, *known["terminations"].tolist()]
    with h5py.File(tmp_path / "source" / "data" / "main_data.hdf5", "r+") as file:
        del file["episode_1/actions"]
    assert "episode_1 has no actions" in complaint(capsys, "minari", tmp_path / "source", tmp_path / "bad")


def test_minari_as_minari_itself_writes_and_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    shutil.copytree(Path(__file__).parent / "minari", source)
    assert run("minari", source, tmp_path / "out", "--image-size", "32", "--fit", "crop") == 0
    dataset, known = open_dataset(tmp_path / "out"), np.load(source / "expected.npz")
    assert [len(episode) for episode in dataset] == [7, 5]
    scale = dataset.action_scale
    assert scale is not None and (scale.low, scale.high) == ((-2, 0), (2, 5))
    for number, episode in enumerate(dataset):
        truth = {name: known[f"{number}/{name}"] for name in ("camera", "pose", "actions", "rewards", "terminations")}
        np.testing.assert_array_equal(episode.pixels, truth["camera"][:, :, 8:40])
        np.testing.assert_allclose(np.array(episode.state), truth["pose"], rtol=1e-6)
        np.testing.assert_allclose(scale.to_source(episode.action[:-1]), truth["actions"], atol=1e-5)
        np.testing.assert_allclose(episode.reward[1:], truth["rewards"], rtol=1e-5)
        assert episode.terminated.tolist() == [False, *truth["terminations"].tolist()]
    with h5py.File(source / "data" / "main_data.hdf5", "r+") as file:
        file["episode_1/observations/camera"][2] = np.frombuffer(b"\xff\xd8 no picture", np.uint8)
    assert "row 2: cannot be decoded" in complaint(capsys, "minari", source, tmp_path / "bad")


def test_minari_discrete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = {"type": "Discrete", "dtype": "int64", "start": 2, "n": 3}
    write_minari(tmp_path / "source", space, [np.array([2, 4, 3])])
    assert run("minari", tmp_path / "source", tmp_path / "out", "--action-range", "-9", "9") == 0
    assert open_dataset(tmp_path / "out").read(0).action[:-1].tolist() == [[1, -1, -1], [-1, -1, 1], [-1, 1, -1]]
    assert "expected ['top']" in complaint(capsys, "minari", tmp_path / "source", tmp_path / "bad", "--camera", "top")
