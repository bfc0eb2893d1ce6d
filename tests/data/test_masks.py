"""Masks in shards and data sets are exact, optional per episode, read on demand, and verified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.conftest import synthetic_episode

from aime.cli.main import main
from aime.data import ClipSampler, Episode, Shard, load_clips, open_dataset, write_shard
from aime.data.describe import describe
from aime.data.identity import episode_digest
from aime.data.mask_names import note_mask_names, read_mask_names
from aime.data.shards import Attribute
from aime.data.stored_frames import StoredFrames
from aime.errors import AimeError

NAMES = {1: "square", 2: "edge"}


@pytest.fixture
def episodes() -> list[Episode]:
    return [synthetic_episode(length, seed, masked=seed != 1) for seed, length in enumerate([20, 13, 7])]


@pytest.fixture
def shard(tmp_path: Path, episodes: list[Episode]) -> Path:
    """Three episodes, of which the second has no masks."""
    write_shard(tmp_path / "shard.h5", episodes, note_mask_names(NAMES))
    return tmp_path / "shard.h5"


def equal(found: np.ndarray | None, expected: np.ndarray | None) -> bool:
    return found is expected if expected is None else found is not None and np.array_equal(found, expected)


def test_masks_come_back_and_none_where_there_are_none(shard: Path, episodes: list[Episode]) -> None:
    dataset = open_dataset(shard)
    assert dataset.has_mask.tolist() == [True, False, True]
    assert dataset.mask_names == NAMES
    for number, episode in enumerate(episodes):
        assert equal(dataset.masks(number), episode.mask)
        assert equal(dataset.read(number).mask, episode.mask)
        assert equal(dataset.masks(number, 2, 5), None if episode.mask is None else episode.mask[2:5])
    assert dataset.select([2, 1]).has_mask.tolist() == [True, False]
    with h5py.File(shard) as file:
        np.testing.assert_array_equal(file["mask"][:20], episodes[0].mask)
        assert (file["mask"].compression, file["mask"].fletcher32, file["mask"].chunks) == ("gzip", True, (16, 8, 8))
        assert file["ep_mask"][:].tolist() == [True, False, True]


def test_a_shard_whose_episodes_all_or_none_have_masks_needs_no_list(tmp_path: Path) -> None:
    for name, masked in (("all", True), ("none", False)):
        write_shard(tmp_path / f"{name}.h5", [synthetic_episode(5, seed, masked=masked) for seed in range(2)])
        with h5py.File(tmp_path / f"{name}.h5") as file:
            assert "ep_mask" not in file
        assert Shard(tmp_path / f"{name}.h5").has_mask.tolist() == [masked, masked]


def test_shards_with_and_without_masks_are_one_data_set(shard: Path) -> None:
    write_shard(shard.with_name("other.h5"), [synthetic_episode(9, 5)])
    dataset = open_dataset(shard.parent)
    assert dataset.has_mask.tolist() == [False, True, False, True]
    assert dataset.mask_names == NAMES
    write_shard(shard.with_name("third.h5"), [synthetic_episode(9, 6, masked=True)], note_mask_names({1: "edge"}))
    assert open_dataset(shard.parent).mask_names == {}


def test_masks_change_no_digest(shard: Path, episodes: list[Episode], tmp_path: Path) -> None:
    write_shard(tmp_path / "bare" / "0.h5", [replace(episode, mask=None) for episode in episodes])
    expected = tuple(episode_digest(each.pixels, each.action, each.state) for each in episodes)
    assert open_dataset(shard).digests == open_dataset(tmp_path / "bare").digests == expected


def test_pixels_alone_read_no_mask(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = StoredFrames.read

    def guarded(self: StoredFrames, start: int, stop: int, what: str) -> np.ndarray:
        assert self.name == "pixels"
        return read(self, start, stop, what)

    monkeypatch.setattr(StoredFrames, "read", guarded)
    dataset = open_dataset(shard)
    ClipSampler(dataset, 2, 5, 0).sample(0)
    load_clips(dataset, 5)
    dataset.mean_image()
    assert len(dataset.digests) == 3
    with pytest.raises(AssertionError):
        dataset.masks(0)


def test_masks_alone_read_no_pixel_and_may_be_written_to(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shard, "read_pixels", None)
    dataset = open_dataset(shard)
    found = dataset.masks(0)
    assert found is not None
    found[:] = 9
    assert not equal(dataset.masks(0), found)


@pytest.mark.parametrize(("episode", "start", "stop"), [(3, 0, 1), (0, 0, 21), (0, 5, 5), (1, -1, 3)])
def test_what_is_not_there_is_refused(shard: Path, episode: int, start: int, stop: int) -> None:
    with pytest.raises(AimeError, match="expected"):
        open_dataset(shard).masks(episode, start, stop)


def test_damaged_masks_are_named_and_pixels_are_read_all_the_same(shard: Path, episodes: list[Episode]) -> None:
    with h5py.File(shard) as file:
        chunk = file["mask"].id.get_chunk_info(2)
    content = bytearray(shard.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 1
    shard.write_bytes(content)
    dataset = open_dataset(shard)
    with pytest.raises(AimeError, match=r"shard\.h5: 'mask' of episode 2 cannot be read"):
        dataset.masks(2)
    assert equal(dataset.masks(0), episodes[0].mask)
    np.testing.assert_array_equal(load_clips(dataset, 7).frames[2].permute(0, 2, 3, 1).numpy(), episodes[2].pixels)
    with pytest.raises(AimeError, match="'mask' of episode 2"):
        describe(dataset)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mask": np.zeros((6, 8, 8), np.int64)}, "'mask' has dtype int64, expected uint8"),
        ({"mask": np.zeros((5, 8, 8), np.uint8)}, r"'mask' has shape \(5, 8, 8\), expected \(6, 8, 8\)"),
        ({"mask": np.zeros((6, 8, 8, 1), np.uint8)}, r"'mask' has shape \(6, 8, 8, 1\), expected \(6, 8, 8\)"),
    ],
)
def test_the_writer_refuses_other_masks(tmp_path: Path, change: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(AimeError, match=words):
        write_shard(tmp_path / "s.h5", [synthetic_episode(4), replace(synthetic_episode(6), **change)])


def _put(name: str, **layout: object) -> Callable[[h5py.File, Path], None]:
    def change(file: h5py.File, path: Path) -> None:
        del file[name]
        file.create_dataset(name, **layout)

    return change


def _external(file: h5py.File, path: Path) -> None:
    del file["mask"]
    file["mask"] = h5py.ExternalLink(str(path), "mask")


def _giant_chunk(file: h5py.File, path: Path) -> None:
    del file["mask"]
    mask = file.create_dataset("mask", (40, 8192, 8192), "uint8", chunks=(40, 8192, 8192), compression="gzip")
    mask.id.write_direct_chunk((0, 0, 0), b"x\x9c")


HOSTILE = {
    "dtype": (_put("mask", data=np.zeros((40, 8, 8), bool)), "'mask' has dtype bool, expected uint8"),
    "axes": (_put("mask", data=np.zeros((40, 8, 8, 1), np.uint8)), "expected 3 axes"),
    "size": (_put("mask", data=np.zeros((40, 4, 4), np.uint8)), r"has shape \(40, 4, 4\), expected \(40, 8, 8\)"),
    "rows": (_put("mask", data=np.zeros((39, 8, 8), np.uint8)), "'mask' has 39 rows and 'pixels' 40"),
    "unwritten": (_put("mask", shape=(40, 8, 8), dtype="uint8", chunks=(16, 8, 8)), "0 of 3 chunks"),
    "list": (_put("ep_mask", data=np.zeros(2, bool)), "'ep_mask' has 2 entries and 'ep_len' 3"),
    "list of numbers": (_put("ep_mask", data=np.zeros(3, np.uint8)), "'ep_mask' has dtype uint8, expected bool"),
    "external": (_external, "'mask' lies in another file"),
    "giant chunk": (_giant_chunk, "is stored in chunks of 2560 MB"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_masks_are_refused_in_one_line(shard: Path, kind: str) -> None:
    change, words = HOSTILE[kind]
    with h5py.File(shard, "r+") as file:
        change(file, shard)
    with pytest.raises(AimeError, match=words) as caught:
        Shard(shard)
    assert str(shard) in str(caught.value) and "\n" not in str(caught.value)


def test_a_list_without_masks_is_refused(shard: Path) -> None:
    with h5py.File(shard, "r+") as file:
        del file["mask"]
    with pytest.raises(AimeError, match="expected as many, and a field 'mask'"):
        Shard(shard)


def test_a_chunk_of_masks_that_inflates_beyond_its_size_is_refused(shard: Path) -> None:
    import zlib

    with h5py.File(shard, "r+") as file:
        file["mask"].id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(10**7)), 4)  # its checksum is left out
    with pytest.raises(AimeError, match="'/mask' inflates to more than its size at row 0"):
        open_dataset(shard).masks(0)


@pytest.mark.parametrize("value", ["[1]", "{", '{"a": "b"}', '{"0": "floor"}', '{"256": "far"}', "[" * 5000, 3])
def test_names_of_another_form_count_as_none(value: Attribute) -> None:
    assert read_mask_names({"mask_names": value}) == {}
    assert read_mask_names({}) == {}
    assert read_mask_names(note_mask_names({2: "b", 1: "a"})) == {1: "a", 2: "b"}


def test_masks_are_described(shard: Path, episodes: list[Episode], capsys: pytest.CaptureFixture[str]) -> None:
    summary = describe(open_dataset(shard))
    masks = np.concatenate([episode.mask for episode in episodes if episode.mask is not None])
    assert (summary.masked, summary.mask_names) == (2, NAMES)
    assert summary.mask_shares == pytest.approx({number: float((masks == number).mean()) for number in range(3)})
    assert main(["data", str(shard)]) == 0
    shown = capsys.readouterr().out
    assert f"2 of 3 episodes; of the pixels: square {(masks == 1).mean():.1%}, edge 12.5%" in shown
    assert "mask_names" not in shown
