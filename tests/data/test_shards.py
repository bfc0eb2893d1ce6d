"""Shards return what was written, and violations of the schema are named."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aime.data import Episode, Shard, write_shard
from aime.errors import AimeError

MakeEpisode = Callable[..., Episode]


@pytest.fixture
def shard(tmp_path: Path, make_episode: MakeEpisode) -> Path:
    path = tmp_path / "shard.h5"
    write_shard(path, [make_episode(20, 1), make_episode(13, 2)])
    return path


def error_of(path: Path) -> str:
    """The message of the one error that opening a file must give: a line that names the file."""
    with pytest.raises(AimeError) as caught:
        Shard(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def put(path: Path, name: str, value: Any, dtype: Any = None) -> None:
    with h5py.File(path, "r+") as file:
        del file[name]
        file.create_dataset(name, data=value, dtype=dtype)


def test_round_trip_is_exact(tmp_path: Path, make_episode: MakeEpisode) -> None:
    episodes = [make_episode(length, seed) for seed, length in enumerate([20, 1, 13])]
    path = tmp_path / "new" / "shard.h5"
    write_shard(path, episodes, {"task": "square", "repeat": 2, "speed": 0.5, "shadows": False})
    shard = Shard(path)
    assert shard.lengths.tolist() == [20, 1, 13]
    assert shard.offsets.tolist() == [0, 20, 21]
    assert (shard.image_size, shard.action_width, shard.state_width) == (8, 2, 3)
    assert shard.attributes == {"task": "square", "repeat": 2, "speed": 0.5, "shadows": False}
    for name in ("action", "reward", "terminated", "state"):
        expected = np.concatenate([getattr(episode, name) for episode in episodes])
        np.testing.assert_array_equal(getattr(shard, name), expected)
        assert getattr(shard, name).dtype == expected.dtype
    np.testing.assert_array_equal(shard.read_pixels(0, 34), np.concatenate([e.pixels for e in episodes]))
    np.testing.assert_array_equal(shard.read_pixels(15, 19), episodes[0].pixels[15:19])


def test_file_has_the_flat_schema(shard: Path) -> None:
    with h5py.File(shard) as file:
        assert set(file) == {"pixels", "action", "reward", "terminated", "state", "ep_len", "ep_offset"}
        pixels = file["pixels"]
        assert (pixels.chunks, pixels.compression, pixels.compression_opts) == ((16, 8, 8, 3), "gzip", 1)
        assert pixels.shuffle
        dtypes = {name: file[name].dtype.name for name in file}
    assert dtypes == {
        "pixels": "uint8",
        "action": "float32",
        "reward": "float32",
        "terminated": "bool",
        "state": "float32",
        "ep_len": "int64",
        "ep_offset": "int64",
    }


def test_state_is_optional(tmp_path: Path, make_episode: MakeEpisode) -> None:
    write_shard(tmp_path / "s.h5", [make_episode(5, state_width=None)])
    assert Shard(tmp_path / "s.h5").state is None


def test_foreign_layout_is_read(shard: Path) -> None:
    """Files of other writers: no compression, int32 lengths, float64 rewards."""
    before = Shard(shard)
    with h5py.File(shard) as file:
        pixels = file["pixels"][:]
    put(shard, "pixels", pixels)
    put(shard, "reward", before.reward.astype(np.float64))
    put(shard, "ep_len", before.lengths, np.int32)
    with h5py.File(shard, "r+") as file:
        file.attrs["array"] = np.arange(3)
    after = Shard(shard)
    assert (after.reward.dtype.name, after.lengths.dtype.name) == ("float32", "int64")
    np.testing.assert_array_equal(after.read_pixels(3, 21), pixels[3:21])
    assert "array" not in after.attributes


def test_two_legal_nans_and_no_others(shard: Path) -> None:
    opened = Shard(shard)
    assert np.isnan(opened.action[[19, 32]]).all()
    assert np.isnan(opened.reward[[0, 20]]).all()
    assert np.isfinite(np.delete(opened.action, [19, 32], axis=0)).all()
    put(shard, "action", np.nan_to_num(opened.action))
    put(shard, "reward", np.nan_to_num(opened.reward))
    Shard(shard)


@pytest.mark.parametrize("field", ["action", "reward"])
def test_an_episode_may_lack_all_of_its_actions_or_rewards_but_not_some(shard: Path, field: str) -> None:
    values = getattr(Shard(shard), field).copy()
    first, second = Shard(shard).offsets
    values[first:second] = np.nan
    put(shard, field, values)
    assert np.isnan(getattr(Shard(shard), field)[first:second]).all()
    values[first + 3] = 0
    put(shard, field, values)
    assert f"'{field}' at episode 0, step" in error_of(shard)


@pytest.mark.parametrize(
    ("field", "row", "value", "words"),
    [
        ("action", 4, np.nan, ["'action' at episode 0, step 4 is nan", "only the last action"]),
        ("action", 20, np.nan, ["'action' at episode 1, step 0 is nan"]),
        ("action", 7, np.inf, ["'action' at episode 0, step 7 is inf"]),
        ("action", 19, -np.inf, ["'action' at episode 0, step 19 is -inf"]),
        ("action", 25, 1.5, ["'action' at episode 1, step 5 is 1.5", "[-1, 1]"]),
        ("action", 32, -1.25, ["'action' at episode 1, step 12 is -1.25", "[-1, 1]"]),
        ("reward", 1, np.nan, ["'reward' at episode 0, step 1 is nan", "only the first reward"]),
        ("reward", 20, np.inf, ["'reward' at episode 1, step 0 is inf"]),
        ("reward", 32, -np.inf, ["'reward' at episode 1, step 12 is -inf"]),
        ("state", 21, np.inf, ["'state' at episode 1, step 1"]),
    ],
)
def test_illegal_numbers_are_named(shard: Path, field: str, row: int, value: float, words: list[str]) -> None:
    values = getattr(Shard(shard), field).copy()
    values[row] = value
    put(shard, field, values)
    message = error_of(shard)
    assert all(word in message for word in words), message


def test_any_number_of_a_state_may_be_unknown(shard: Path) -> None:
    state = Shard(shard).state
    assert state is not None
    state = state.copy()
    state[21, 0], state[5] = np.nan, np.nan
    put(shard, "state", state)
    np.testing.assert_array_equal(Shard(shard).state, state)


def test_half_of_the_last_action_may_not_be_nan(shard: Path) -> None:
    action = Shard(shard).action.copy()
    action[19] = 0.5, np.nan
    put(shard, "action", action)
    assert "episode 0, step 19" in error_of(shard)


@pytest.mark.parametrize("name", ["pixels", "action", "reward", "terminated", "ep_len", "ep_offset"])
def test_missing_field_is_named(shard: Path, name: str) -> None:
    with h5py.File(shard, "r+") as file:
        del file[name]
    assert f"no field '{name}'" in error_of(shard)


def test_group_in_place_of_a_field_is_named(shard: Path) -> None:
    with h5py.File(shard, "r+") as file:
        del file["reward"]
        file.create_group("reward")
    assert "no field 'reward'" in error_of(shard)


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [
        ("pixels", "float32", "uint8"),
        ("action", "float64", "float32"),
        ("action", "int64", "float32"),
        ("reward", "int32", "float32"),
        ("terminated", "uint8", "bool"),
        ("ep_len", "float32", "int64"),
        ("state", "int8", "float32"),
    ],
)
def test_wrong_dtype_is_named(shard: Path, name: str, dtype: str, expected: str) -> None:
    with h5py.File(shard) as file:
        values = np.nan_to_num(file[name][:])
    put(shard, name, values.astype(dtype))
    message = error_of(shard)
    assert f"'{name}' has dtype {dtype}, expected {expected}" in message


@pytest.mark.parametrize("name", ["action", "reward", "terminated", "state"])
def test_mismatched_length_is_named(shard: Path, name: str) -> None:
    put(shard, name, getattr(Shard(shard), name)[:-1])
    assert f"'{name}' has 32 rows and 'pixels' 33" in error_of(shard)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("reward", np.zeros((33, 1), np.float32), "'reward' has shape (33, 1), expected 1 axes"),
        ("pixels", np.zeros((33, 8, 8), np.uint8), "'pixels' has shape (33, 8, 8), expected 4 axes"),
        ("pixels", np.zeros((33, 3, 8, 8), np.uint8), "expected [N, H, H, 3]"),
        ("pixels", np.zeros((33, 8, 6, 3), np.uint8), "expected [N, H, H, 3]"),
        ("ep_len", np.array([20, 12]), "sums to 32 but 'pixels' has 33"),
        ("ep_len", np.array([33, 0]), "'ep_len' of episode 1 is 0"),
        ("ep_len", np.array([33]), "'ep_len' has 1 entries and 'ep_offset' 2"),
        ("ep_offset", np.array([0, 19]), "'ep_offset' of episode 1 is 19, expected 20"),
    ],
)
def test_wrong_layout_is_named(shard: Path, name: str, value: np.ndarray, words: str) -> None:
    put(shard, name, value)
    assert words in error_of(shard)


def test_no_episodes_is_an_error(shard: Path) -> None:
    with h5py.File(shard, "r+") as file:
        for name in list(file):
            dtype, shape = file[name].dtype, file[name].shape
            del file[name]
            file.create_dataset(name, (0, *shape[1:]), dtype)
    assert "holds no episode" in error_of(shard)


def test_what_is_no_shard_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty.h5").touch()
    (tmp_path / "foreign.h5").write_bytes(b"PK\x03\x04" + bytes(1000))
    assert "no such file" in error_of(tmp_path / "missing.h5")
    assert "is empty (0 bytes)" in error_of(tmp_path / "empty.h5")
    assert "is not an HDF5 file" in error_of(tmp_path / "foreign.h5")
    assert "is not a file" in error_of(tmp_path)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_truncated_file_is_named(shard: Path, share: float) -> None:
    content = shard.read_bytes()
    shard.write_bytes(content[: int(share * len(content))])
    error_of(shard)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_never_escape_as_another_error(shard: Path, data: st.DataObject) -> None:
    content = bytearray(shard.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = shard.with_name("damaged.h5")
    damaged.write_bytes(content)
    message = f"{damaged} is sound"
    try:
        Shard(damaged).read_pixels(0, 33)
    except AimeError as error:
        message = str(error)
    assert str(damaged) in message
    assert "\n" not in message


def test_damaged_pixels_open_but_name_the_episode_when_read(shard: Path) -> None:
    with h5py.File(shard) as file:
        chunk = file["pixels"].id.get_chunk_info_by_coord((16, 0, 0, 0))
    content = bytearray(shard.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    shard.write_bytes(content)
    opened = Shard(shard)
    assert opened.read_pixels(0, 16).shape == (16, 8, 8, 3)
    with pytest.raises(AimeError, match=r"shard\.h5: 'pixels' of episode 1 cannot be read"):
        opened.read_pixels(24, 30)


def test_file_replaced_by_another_is_read_again(tmp_path: Path, make_episode: MakeEpisode) -> None:
    path = tmp_path / "s.h5"
    write_shard(path, [make_episode(5)])
    assert Shard(path).lengths.tolist() == [5]
    path.unlink()
    write_shard(path, [make_episode(9)])
    assert Shard(path).lengths.tolist() == [9]


def test_existing_file_is_not_overwritten(shard: Path, make_episode: MakeEpisode) -> None:
    before = shard.read_bytes()
    with pytest.raises(AimeError, match="exists already"):
        write_shard(shard, [make_episode(5)])
    assert shard.read_bytes() == before


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_leaves_nothing_behind(
    tmp_path: Path, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(AimeError, match=r"shard\.h5: cannot be written: No space left on device; free some space"):
        write_shard(tmp_path / "shard.h5", [make_episode(5)])
    assert list(tmp_path.iterdir()) == []


def test_path_through_a_file_is_an_error(tmp_path: Path, make_episode: MakeEpisode) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AimeError, match="cannot be written"):
        write_shard(tmp_path / "file" / "shard.h5", [make_episode(5)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pixels": np.zeros((6, 8, 8, 3), np.float32)}, "episode 1: 'pixels' has dtype float32, expected uint8"),
        ({"pixels": np.zeros((6, 9, 9, 3), np.uint8)}, r"episode 1: 'pixels' has shape \(6, 9, 9, 3\)"),
        ({"action": np.zeros((6, 4), np.float32)}, r"episode 1: 'action' has shape \(6, 4\), expected \(6, 2\)"),
        ({"reward": np.zeros(5, np.float32)}, r"episode 1: 'reward' has shape \(5,\), expected \(6,\)"),
        ({"state": None}, "'state' is in some episodes only"),
        ({"action": np.full((6, 2), 2, np.float32)}, "'action' at episode 1, step 0 is 2"),
    ],
)
def test_writer_refuses_what_the_reader_would(
    tmp_path: Path, make_episode: MakeEpisode, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(AimeError, match=words):
        write_shard(tmp_path / "shard.h5", [make_episode(5), replace(make_episode(6), **change)])
    with pytest.raises(AimeError, match="no episode to write"):
        write_shard(tmp_path / "shard.h5", [])
    assert list(tmp_path.iterdir()) == []


def test_many_open_shards_stay_readable(
    tmp_path: Path, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aime.data.stored_frames.MAX_OPEN_FILES", 2)
    episodes = [make_episode(4, seed) for seed in range(5)]
    for seed, episode in enumerate(episodes):
        write_shard(tmp_path / f"{seed}.h5", [episode])
    shards = [Shard(tmp_path / f"{seed}.h5") for seed in range(5)]
    for shard, episode in [*zip(shards, episodes, strict=True)] * 2:
        np.testing.assert_array_equal(shard.read_pixels(0, 4), episode.pixels)


def test_threads_read_at_once(shard: Path) -> None:
    opened = Shard(shard)
    expected = opened.read_pixels(0, 33)
    wrong: list[int] = []

    def read(seed: int) -> None:
        for start in np.random.default_rng(seed).integers(0, 30, 40).tolist():
            if not np.array_equal(opened.read_pixels(start, start + 3), expected[start : start + 3]):
                wrong.append(start)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def _total(shard: Shard) -> int:
    return int(shard.read_pixels(0, 33).sum())


def test_forked_process_reads_with_its_own_handle(shard: Path) -> None:
    opened = Shard(shard)
    total = _total(opened)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_total, (opened,)) == total


def test_pickle_keeps_the_facts(shard: Path) -> None:
    opened = Shard(shard)
    copy = pickle.loads(pickle.dumps(opened))
    np.testing.assert_array_equal(copy.read_pixels(0, 33), opened.read_pixels(0, 33))
    np.testing.assert_array_equal(copy.action, opened.action)
