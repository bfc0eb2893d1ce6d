"""DMC-VB's importer against data sets that tensorflow-datasets wrote, and what it read from them."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from tests.io.importers.encoding import write_walker

from aime.cli.main import main
from aime.data import open_dataset
from aime.data.action_scale import ActionScale
from aime.io.importers.action_parts import Quantities
from aime.io.importers.crc32c import masked_crc32c
from aime.io.importers.dmc_vb import STATE_ORDERS, RldsImporter, open_source
from aime.io.importers.interface import Choice, Recorded
from aime.io.importers.tfds_features import Feature

RLDS = Path(__file__).parent / "rlds"
WALKER = RLDS / "locomotion"
ANT = RLDS / "antmaze_random_visible_goal"
ROBOT = RLDS / "robot"
CAMERAS = ("lowres_top_camera", "walker/egocentric_camera")


def recordings(source: Path, choice: Choice) -> dict[str, list[Recorded]]:
    importers = open_source(source, choice)
    return {place: [importer.read(item) for item in importer.survey().items] for place, importer in importers.items()}


def expected(source: Path) -> dict[str, np.ndarray]:
    with np.load(next(source.rglob("expected.npz")), allow_pickle=False) as arrays:
        return dict(arrays)


def frames_of(recorded: Recorded, camera: int = 0) -> np.ndarray:
    return np.concatenate([blocks[camera] for blocks in recorded.frames])


@pytest.mark.parametrize(
    ("source", "cameras", "states", "rewards_arrive"),
    [
        (WALKER, ("pixels",), STATE_ORDERS[0], True),
        (ANT, CAMERAS, ("distance_to_target", "target_position", "walker/joints_pos"), False),
        (ROBOT, ("image",), ("state",), False),
    ],
)
def test_every_array_is_what_tensorflow_datasets_reads(
    source: Path, cameras: tuple[str, ...], states: tuple[str, ...], rewards_arrive: bool
) -> None:
    truth = expected(source)
    found = recordings(source, Choice(cameras=cameras))
    assert {split: len(episodes) for split, episodes in found.items()} == {"train": 3, "test": 2}
    for split, episodes in found.items():
        for number, episode in enumerate(episodes):
            at = f"{split}/{number}"
            for camera, name in enumerate(cameras):
                again = found[split][number] if camera == 0 else recordings(source, Choice(cameras))[split][number]
                frames = frames_of(again, camera)
                np.testing.assert_array_equal(frames[: len(frames) - again.repeated], truth[f"{at}/observation/{name}"])
            added = int(not rewards_arrive and truth[f"{at}/reward"][-1] != 0)
            length = len(truth[f"{at}/action"])
            assert episode.action is not None and np.isnan(episode.action[-1]).all() and episode.repeated == added
            known = slice(length - 1 + added)
            np.testing.assert_array_equal(episode.action[known], truth[f"{at}/action"][known])
            state = [truth[f"{at}/observation/{name}"].reshape(length, -1) for name in states]
            assert episode.state is not None and np.isnan(episode.state[length:]).all()
            np.testing.assert_array_equal(episode.state[:length], np.concatenate(state, axis=1))
            terminal = truth[f"{at}/is_terminal"].tolist()
            assert episode.terminated is not None
            assert episode.terminated.tolist() == terminal[: length - added] + added * [False] + added * terminal[-1:]
            assert episode.reward is not None and np.isnan(episode.reward[0])
            reward = truth[f"{at}/reward"].astype(np.float32)
            arrived = reward[1:] if rewards_arrive else reward[: length - 1 + added]
            np.testing.assert_array_equal(episode.reward[1:], arrived)


def test_the_fixture_is_small() -> None:
    assert sum(path.stat().st_size for path in RLDS.rglob("*")) < 1e6


@pytest.mark.parametrize("order", STATE_ORDERS)
def test_states_stand_in_the_benchmarks_order_whatever_order_they_are_declared_in(order: tuple[str, ...]) -> None:
    pixels = Feature("observation/pixels", (64, 64, 3), "uint8", "zlib")
    fields = [Feature(f"observation/{name}", (index + 1,), "float64", "none") for index, name in enumerate(order)]
    action = Feature("action", (6,), "float32", "none")
    features = (pixels, *sorted(fields, key=lambda feature: feature.path), action)
    facts = RldsImporter(Path(), "train", (), features, Choice(), (Quantities.unbounded(6),)).facts
    assert list(facts.state_names.items()) == [(name, index + 1) for index, name in enumerate(order)]
    assert facts.action_range == ((-1.0,) * 6, (1.0,) * 6)


def run(*arguments: object) -> int:
    return main(["import", "dmc-vb", *map(str, arguments), "--workers", "1"])


def test_the_command_makes_a_data_set_of_each_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(WALKER, "--out", tmp_path) == 0
    assert "3 episodes, 20 frames of 64x64" in capsys.readouterr().out
    truth, train = expected(WALKER), open_dataset(tmp_path / "train")
    assert train.lengths.tolist() == [9, 4, 7] and open_dataset(tmp_path / "test").lengths.tolist() == [5, 3]
    np.testing.assert_array_equal(train.read(2).pixels, truth["train/2/observation/pixels"])
    np.testing.assert_allclose(train.read(2).action[:-1], truth["train/2/action"][:-1], atol=1e-6)
    assert json.loads(str(train.attributes["state_names"])) == {"orientations": 14, "height": 1, "velocity": 9}
    assert ActionScale.of_attributes(train.attributes) == ActionScale.identity(6)
    assert json.loads((tmp_path / "train" / "import.json").read_text())["episodes"] == 3


def test_cameras_are_tiled_and_resized(tmp_path: Path) -> None:
    assert run(ANT, "--out", tmp_path, "--split", "train", "--camera", *CAMERAS) == 0
    truth = expected(ANT)
    pixels = open_dataset(tmp_path).read(0).pixels[: len(truth["train/0/action"])]
    for column, name in enumerate(CAMERAS):
        np.testing.assert_array_equal(
            pixels[:, :32, 32 * column : 32 * column + 32], truth[f"train/0/observation/{name}"]
        )
    assert not pixels[:, 32:].any()
    assert run(ROBOT, "--out", tmp_path / "robot", "--split", "test", "--image-size", 32) == 0
    assert open_dataset(tmp_path / "robot").image_size == 32


def complaint(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert run(*arguments) == 2
    text = capsys.readouterr().err.splitlines()
    assert text[-1].startswith("aime import: ")
    return text[-1]


def test_a_camera_must_be_chosen_and_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--camera" in complaint(capsys, ANT, "--out", tmp_path)
    assert "has no camera ['top']" in complaint(capsys, ANT, "--out", tmp_path, "--camera", "top")
    assert "has no split 'eval'" in complaint(capsys, WALKER, "--out", tmp_path, "--split", "eval")


def test_descriptions_that_are_missing_or_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_walker(tmp_path / "source", [4])
    features = source / "features.json"
    content = features.read_text()
    for text, words in (
        (content.replace('"float64"', '"float128"', 1), "'observation/position' has dtype 'float128'"),
        (content.replace('"zlib"', '"rle"'), "'observation/pixels' has encoding 'rle'"),
        (content.replace('"64", "64"', '"640000", "64"'), "has shape [640000, 64, 3]"),
        (content.replace('"sequence"', '"sequins"'), "declares no data set 'steps'"),
        ("[" * 100_000, "is not JSON"),
    ):
        features.write_text(text)
        message = complaint(capsys, source, "--out", tmp_path / "out")
        assert words in message and str(features) in message
    features.unlink()
    assert "features.json: no such file" in complaint(capsys, source, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def damage(path: Path, offset: int, value: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[offset : offset + len(value)] = value
    path.write_bytes(content)


def test_damage_is_told_with_file_and_offset_and_skipped_on_demand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def corrupt(name: str, words: str, dropped: int, kept: list[int]) -> None:
        out = tmp_path / name
        message = complaint(capsys, source, "--out", out)
        assert words in message and first.name in message and "byte" in message
        assert run(source, "--out", out, "--skip-bad") == 0
        printed = capsys.readouterr().out
        report = json.loads((out / "import.json").read_text())
        assert len(report["dropped"]) == dropped and words in report["dropped"][0]
        assert f"{dropped} dropped:" in printed and words in printed
        assert open_dataset(out).lengths.tolist() == kept

    pristine = write_walker(tmp_path / "pristine", [4, 5, 6])
    source = tmp_path / "source"
    first = source / "rlds-train.tfrecord-00000-of-00002"
    for name, words, change, kept in (
        ("checksum", "checksum of a record of", lambda: damage(first, 5000, b"\0\1\2\3"), [5, 6]),
        ("header", "checksum of a record's length", lambda: damage(first, 0, b"\1"), [6]),
        ("truncated", "truncated", lambda: first.write_bytes(first.read_bytes()[:-100]), [4, 6]),
        ("cut", "truncated", lambda: first.write_bytes(first.read_bytes()[:7]), [6]),
        ("zlib", "is not what features.json declares", lambda: rewrite(first, b"\x78\x01", b"\x79\x01"), [5, 6]),
        ("missing", "has no feature 'steps/action'", lambda: rewrite(first, b"steps/action", b"steps/acting"), [5, 6]),
    ):
        shutil.copytree(pristine, source)
        change()
        corrupt(name, words, 1, kept)
        shutil.rmtree(source)


def rewrite(path: Path, old: bytes, new: bytes) -> None:
    """Change the first record and mend its checksum: what a damaged writer, or a hostile one, leaves."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    body = content[12 : 12 + length].replace(old, new, 1)
    path.write_bytes(content[:12] + body + struct.pack("<I", masked_crc32c(body)) + content[16 + length :])


def test_a_bomb_is_not_inflated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_walker(tmp_path / "source", [3], size=128)
    features = source / "features.json"
    features.write_text(features.read_text().replace('"128", "128"', '"16", "16"'))
    message = complaint(capsys, source, "--out", tmp_path / "out")
    assert "769 or more bytes a step, expected 768" in message


def test_a_file_name_that_leaves_the_directory_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_walker(tmp_path / "source", [3])
    info = source / "dataset_info.json"
    content = info.read_text()
    info.write_text(content.replace('"rlds"', '"../../etc/rlds"'))
    assert "expected one in the same directory" in complaint(capsys, source, "--out", tmp_path / "out")
    for name in ("../../outside", "..", str(tmp_path / "elsewhere")):
        other = {"name": name, "shardLengths": ["1"], "filepathTemplate": "{DATASET}.tfrecord"}
        info.write_text(content.replace('"splits": [', f'"splits": [{json.dumps(other)}, '))
        assert f"names a split '{name}'" in complaint(capsys, source, "--out", tmp_path / "out")
