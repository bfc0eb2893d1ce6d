"""Sources of other programs that are damaged or hostile: one line, whatever they hold."""

from __future__ import annotations

import io
import json
import os
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.io.importers.encoding import example, feature, field, tensor, varint, write_walker
from tests.io.importers.test_hdf5_kinds import frames, steps, write_minari, write_worldmodel
from tests.io.importers.test_last_row import write_rlds

from aime.cli.main import main
from aime.data import open_dataset
from aime.io.importers.interface import BadEpisode, in_order, truths
from aime.io.importers.tfds_features import Feature, decode_column, decode_frames
from aime.io.importers.wire import MAX_PARTS, WireError, bytes_list, example_features, float_list, int64_list


def complaint(capsys: pytest.CaptureFixture[str], kind: str, source: Path, out: Path, *flags: str) -> str:
    assert main(["import", kind, str(source), "--out", str(out), "--image-size", "16", "--workers", "1", *flags]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("aime import: ") and not any("Traceback" in line for line in lines)
    return lines[-1]


ODD: tuple[Any, ...] = (None, -1, 10**30, "x", "9" * 5000, [], {}, [[1]], True, "5²", "\0", 1.5)


def replaced(content: Any, place: list[Any], value: Any) -> Any:
    copy = json.loads(json.dumps(content))
    node = copy
    for part in place[:-1]:
        node = node[part]
    node[place[-1]] = value
    return copy


def places(content: Any) -> list[list[Any]]:
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [[key, *rest] for key, inner in pairs for rest in ([], *places(inner))]


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_json_of_another_type(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Every member of both descriptions in turn is something else; the import works all the same, or says why not."""
    path = write_walker(tmp_path / "source", [3]) / name
    content = json.loads(path.read_text())
    for number, place in enumerate(places(content)):
        path.write_text(json.dumps(replaced(content, place, ODD[number % len(ODD)])))
        out = tmp_path / f"out{number}"
        command = ["import", "dmc-vb", str(path.parent), "--out", str(out), "--image-size", "16", "--workers", "1"]
        assert main(command) in (0, 2), place
        assert "Traceback" not in capsys.readouterr().err
    for text in ("[]", "1", '"x"', "[" * 10**5, "9" * 5000, '"\\ud800"', '{"a":'):
        path.write_text(text)
        assert str(path) in complaint(capsys, "dmc-vb", path.parent, tmp_path / "out")


def test_vectors_that_inflate_to_gigabytes_are_not_stacked() -> None:
    """20,000 steps of a vector that has 256 kB, in a record of 6 MB."""
    packed = zlib.compress(bytes(2**18), 9)
    content = memoryview(feature([packed] * 20_000))
    vector = Feature("observation/state", (2**16,), "float32", "zlib")
    with pytest.raises(BadEpisode, match="20000 steps that are larger than 256 MB together"):
        decode_column(vector, content, "here")


def test_pictures_of_no_declared_size_come_by_their_own() -> None:
    """Of 4096x4096 one at a time, however many a block of small ones would have."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((4096, 4096, 3), np.uint8)).save(file, "PNG")
    content = memoryview(feature([file.getvalue()] * 3))
    blocks = decode_frames(Feature("observation/image", (-1, -1, 3), "uint8", "image"), content, "here")
    assert len(next(blocks)) == 1


def test_pictures_of_several_sizes_are_refused() -> None:
    files = []
    for size in (16, 24):
        file = io.BytesIO()
        Image.fromarray(np.zeros((size, size, 3), np.uint8)).save(file, "PNG")
        files.append(file.getvalue())
    image = Feature("observation/image", (-1, -1, 3), "uint8", "image")
    with pytest.raises(BadEpisode, match="expected one size"):
        list(decode_frames(image, memoryview(feature(files)), "here"))


def test_values_that_stand_one_by_one_are_counted() -> None:
    content = memoryview(field(1, b"\x0a\x00" * (MAX_PARTS + 1)))
    with pytest.raises(WireError, match="more than 200000 values"):
        bytes_list(content)


@pytest.mark.parametrize("count", [0, 1, 500_000])
def test_whole_numbers_in_pieces_are_those_in_one(count: int) -> None:
    """Of one to ten bytes each, so that pieces end inside of numbers."""
    random = np.random.default_rng(0)
    numbers = random.integers(-(2**62), 2**62, count) >> random.integers(0, 62, count)
    encoded = b"".join(map(varint, numbers.tolist()))
    np.testing.assert_array_equal(int64_list(memoryview(field(3, field(1, encoded)))), numbers)


@settings(max_examples=300)
@given(data=st.data())
def test_mutated_messages_are_read_or_refused(data: st.DataObject) -> None:
    """Any other exception fails the test."""
    values = {"a": feature([b"abc", b""]), "b": feature(np.arange(5.0)), "c": feature(np.arange(-3, 3), packed=False)}
    content = bytearray(example(values))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=10))
    try:
        for found in example_features(memoryview(bytes(content))).values():
            for read in (bytes_list, float_list, int64_list):
                read(found)
    except WireError as error:
        assert "\n" not in str(error)


def test_a_reward_of_another_kind_is_no_reward(tmp_path: Path) -> None:
    values = {"action": np.array([0.5, 0, 0])}
    declared = {"action": tensor((1,), "float32"), "reward": tensor((), "string"), "is_terminal": {"text": {}}}
    source = write_rlds(tmp_path / "in", values, declared)
    assert main(["import", "dmc-vb", str(source), "--out", str(tmp_path / "out"), "--image-size", "16"]) == 0
    assert np.isnan(open_dataset(tmp_path / "out").read(0).reward).all()


def test_names_that_only_look_like_numbers_are_in_order() -> None:
    names = ["9" * 5000, "5²", "episode_١", "10", "9", "b\udcff"]
    assert [path.name for path in in_order(map(Path, names)) if path.name in ("9", "10", names[0])][:2] == ["9", "10"]


@pytest.mark.parametrize("values", [np.array([0, 2]), np.array([0, np.nan]), np.array([[0, 1]]), np.array([0, 1j])])
def test_ends_are_0_or_1(values: np.ndarray) -> None:
    with pytest.raises(BadEpisode, match="expected"):
        truths("terminated", values, 2)


def test_litter_of_a_desktop_is_left_alone(tmp_path: Path) -> None:
    """macOS leaves `._NAME` beside each file and `.DS_Store` in each directory that it copies to a foreign disk."""

    def imported(kind: str, source: Path) -> int:
        for path in [path for path in source.rglob("*") if path.is_file()]:
            path.with_name(f"._{path.name}").write_bytes(b"\0\x05\x16\x07\0\2\0\0Mac OS X        ")
        (source / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
        out = tmp_path / f"out {kind}"
        assert main(["import", kind, str(source), "--out", str(out), "--image-size", "16", "--workers", "1"]) == 0
        (out / "._episodes-000000-000.h5").write_bytes(b"\0\x05\x16\x07")
        return open_dataset(out).episodes

    for kind in ("swm", "drl", "drl5"):
        (tmp_path / kind).mkdir()
    write_worldmodel(tmp_path / "swm/a.h5", [6, 3])
    assert imported("stable-worldmodel", tmp_path / "swm") == 2
    np.savez(tmp_path / "drl/e.npz", image=frames(5, 0), **steps(5, 0))  # type: ignore[arg-type]
    assert imported("v-d4rl", tmp_path / "drl") == 1
    write_minari(tmp_path / "minari", {"type": "Discrete", "n": 3}, [np.array([0, 1, 2])])
    assert imported("minari", tmp_path / "minari") == 1
    assert imported("dmc-vb", write_walker(tmp_path / "walker", [3], size=16)) == 1


@pytest.mark.parametrize("kind", ["dmc-vb", "minari"])
def test_a_pipe_in_place_of_a_description(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    place = tmp_path / "source"
    if kind == "dmc-vb":
        path = write_walker(place, [3]) / "features.json"
    else:
        write_minari(place, {"type": "Discrete", "n": 3}, [np.array([0, 1, 2])])
        path = place / "data/main_data.hdf5"
    path.unlink()
    os.mkfifo(path)
    complaint(capsys, kind, place, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ep_len", np.array([2**62, 2**62])),
        ("ep_len", np.array([-1, 10])),
        ("ep_offset", np.array([0, 2**63 - 1])),
        ("ep_offset", np.array([0, 2**64 - 1], np.uint64)),
        ("ep_len", np.array([6.5, 2.5])),
        ("ep_len", np.array([6])),
        ("ep_offset", np.float64(3)),
        ("reward", np.zeros((9, 2))),
        ("terminated", np.full(9, np.nan)),
        ("action", np.zeros((9, 0), np.int64)),
    ],
)
def test_numbers_of_stable_worldmodel_that_do_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: np.ndarray
) -> None:
    path = tmp_path / "a.h5"
    write_worldmodel(path, [6, 3])
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = value
    assert str(path) in complaint(capsys, "stable-worldmodel", path, tmp_path / "out")
