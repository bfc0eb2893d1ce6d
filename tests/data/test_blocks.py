"""Blocks decoded without HDF5 equal HDF5's, and damage is reported alike."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.conftest import synthetic_episode

from aime.data import write_shard
from aime.data.blocks import Blocks, FileIdentity, OpenFiles
from aime.data.shards import Shard
from aime.errors import AimeError

FRAMES = 45


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_shard(tmp_path / "0.h5", [synthetic_episode(40), synthetic_episode(FRAMES - 40, 1)])
    return tmp_path / "0.h5"


def identity(path: Path) -> FileIdentity:
    status = path.stat()
    return FileIdentity(path, status.st_ino, status.st_mtime_ns)


def test_blocks_are_what_hdf5_reads(path: Path) -> None:
    with h5py.File(path) as file, path.open("rb") as raw:
        blocks, pixels = Blocks.of(file["pixels"]), file["pixels"][:]
        assert blocks is not None
        read = np.concatenate([blocks.read(raw.fileno(), number) for number in range(3)])
    np.testing.assert_array_equal(read[:FRAMES], pixels)
    shard = Shard(path)
    for start, stop in ((0, 16), (3, 9), (32, 48), (40, 41), (44, 99)):
        np.testing.assert_array_equal(shard.read_pixels(start, stop), pixels[start:stop])


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"chunks": (16, 8, 8, 3), "compression": "lzf"},
        {"chunks": (16, 4, 8, 3), "compression": "gzip"},
        {"chunks": (16, 8, 8, 3), "fletcher32": True},
    ],
)
def test_other_layouts_are_left_to_hdf5(path: Path, layout: dict[str, object]) -> None:
    with h5py.File(path, "r+") as file:
        pixels = file["pixels"][:]
        del file["pixels"]
        file.create_dataset("pixels", data=pixels, **layout)
        assert Blocks.of(file["pixels"]) is None
    np.testing.assert_array_equal(Shard(path).read_pixels(0, 16), pixels[:16])


def test_gzip_without_shuffle_is_read_as_well(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        pixels = file["pixels"][:]
        del file["pixels"]
        file.create_dataset("pixels", data=pixels, chunks=(16, 8, 8, 3), compression="gzip")
        assert Blocks.of(file["pixels"]) is not None
    np.testing.assert_array_equal(Shard(path).read_pixels(16, 32), pixels[16:32])


@pytest.mark.parametrize(("place", "value"), [(0, 0), (40, 255), (-1, 77), (-3, 1)])
def test_a_damaged_block_names_file_and_episode(path: Path, place: int, value: int) -> None:
    with h5py.File(path) as file:
        blocks = Blocks.of(file["pixels"])
    assert blocks is not None
    content = bytearray(path.read_bytes())
    first, size = int(blocks.offsets[1]), int(blocks.sizes[1])
    content[first + place % size] ^= value or 0xFF
    path.write_bytes(content)
    with pytest.raises(AimeError, match=r"0\.h5: 'pixels' of episode 0 cannot be read") as problem:
        Shard(path).read_pixels(16, 32)
    assert "\n" not in str(problem.value)


def test_a_file_that_was_cut_or_replaced_is_an_error(path: Path) -> None:
    shard = Shard(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    with pytest.raises(AimeError, match="cannot be read"):
        shard.read_pixels(32, 48)


def test_many_files_and_threads(tmp_path: Path) -> None:
    for number in range(6):
        write_shard(tmp_path / f"{number}.h5", [synthetic_episode(20, number)])
    shards = [Shard(tmp_path / f"{number}.h5") for number in range(6)]
    files, wrong = OpenFiles(limit=2), []

    def read(seed: int) -> None:
        for number in np.random.default_rng(seed).integers(6, size=40):
            with h5py.File(shards[number].path) as file:
                blocks = Blocks.of(file["pixels"])
            assert blocks is not None
            frames = files.use(identity(shards[number].path), partial(blocks.read, number=0))
            if not (frames[:, 4].max(axis=(1, 2)) == 255).all() or frames[0, 4].max(axis=0)[0] != 200 + number:
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
