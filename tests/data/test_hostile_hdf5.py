"""HDF5 files with external data, missing chunks or excessive sizes are refused in one line."""

from __future__ import annotations

import fcntl
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.conftest import synthetic_episode

from aime.cli.main import main
from aime.data import Episode, Shard, hdf5_bounds, write_shard
from aime.errors import AimeError

FRAMES = 33


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "shard.h5"
    write_shard(path, [synthetic_episode(20, 1), synthetic_episode(13, 2)], {"task": "square", "fps": 10.0})
    return path


def everything(path: Path) -> list[bytes]:
    """All that a shard gives, byte by byte: fields, attributes, pixels by HDF5 and by blocks."""
    shard = Shard(path)
    assert shard.state is not None
    pixels = [shard.read_pixels(0, FRAMES), *(shard.read_pixels(at, at + 16) for at in (0, 16, 32))]
    small = [shard.lengths, shard.offsets, shard.action, shard.reward, shard.terminated, shard.state]
    return [array.tobytes() for array in (*small, *pixels)] + [repr(sorted(shard.attributes.items())).encode()]


def test_no_flipped_bit_goes_unnoticed(shard: Path) -> None:
    """Either reading says so, or nothing that is read has changed."""
    truth, content = everything(shard), shard.read_bytes()
    flipped = shard.with_name("flipped.h5")
    random = np.random.default_rng(0)
    noticed, text = 0, content.index(b"square")
    for at in [*range(text, text + 6), *random.choice(len(content), 200, replace=False)]:
        changed = bytearray(content)
        changed[at] ^= 1 << random.integers(8)
        flipped.write_bytes(changed)
        try:
            assert everything(flipped) == truth, f"a bit of byte {at}"
        except AimeError as error:
            assert str(flipped) in str(error)
            noticed += 1
    assert noticed > 30, "the rest of the bytes is not used"


@pytest.mark.parametrize("field", ["action", "state", "reward", "terminated", "pixels", "ep_len"])
def test_every_bit_of_a_field_is_checked(shard: Path, field: str) -> None:
    with h5py.File(shard) as file:
        assert file[field].fletcher32
        info = file[field].id.get_chunk_info(0)
    content = shard.read_bytes()
    for at in np.linspace(info.byte_offset, info.byte_offset + info.size - 1, 12).astype(int):
        changed = bytearray(content)
        changed[at] ^= 16
        shard.write_bytes(changed)
        with pytest.raises(AimeError, match="damaged"):
            everything(shard)


def test_a_shard_without_checksums_is_read_as_before(tmp_path: Path, shard: Path) -> None:
    """As AIME wrote them before: HDF5's earliest format, fields as they are, pixels in gzip."""
    old = tmp_path / "old.h5"
    with h5py.File(shard) as new, h5py.File(old, "w") as file:
        for name in new:
            file.create_dataset(name, data=new[name][:], **_old_layout(name))
        file.attrs.update(dict(new.attrs))
    assert everything(old) == everything(shard)


def _old_layout(name: str) -> dict[str, object]:
    return {"chunks": (16, 8, 8, 3), "compression": "gzip", "shuffle": True} if name == "pixels" else {}


def unwritten(file: h5py.File, path: Path) -> None:
    for name in list(file):
        dtype, shape = file[name].dtype, file[name].shape
        del file[name]
        rows = 1 if name.startswith("ep_") else 5 * 10**8
        file.create_dataset(name, (rows, *shape[1:]), dtype, chunks=(min(rows, 16), *shape[1:]), compression="gzip")
    file["ep_len"][0] = 5 * 10**8
    file["ep_offset"][0] = 0


def one_giant_chunk(file: h5py.File, path: Path) -> None:
    del file["pixels"]
    pixels = file.create_dataset("pixels", (33, 4096, 4096, 3), "uint8", chunks=(33, 4096, 4096, 3), compression="gzip")
    pixels.id.write_direct_chunk((0, 0, 0, 0), b"x\x9c")


def inflating_chunk(file: h5py.File, path: Path) -> None:
    """A chunk of 264 bytes whose zlib stream has a hundred million."""
    import zlib

    del file["action"]
    action = file.create_dataset("action", (33, 2), "float32", chunks=(33, 2), compression="gzip")
    stream = zlib.compressobj(9)
    packed = b"".join(stream.compress(bytes(10**6)) for _ in range(100)) + stream.flush()
    action.id.write_direct_chunk((0, 0), packed)


def external_storage(file: h5py.File, path: Path) -> None:
    del file["pixels"]
    file.create_dataset("pixels", (33, 8, 8, 3), "uint8", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def virtual(file: h5py.File, path: Path) -> None:
    del file["pixels"]
    layout = h5py.VirtualLayout((33, 8, 8, 3), "uint8")
    layout[:] = h5py.VirtualSource(path, "pixels", (33, 8, 8, 3))
    file.create_virtual_dataset("pixels", layout)


def external_link(file: h5py.File, path: Path) -> None:
    del file["pixels"]
    file["pixels"] = h5py.ExternalLink(str(path), "pixels")


def soft_link(file: h5py.File, path: Path) -> None:
    file["elsewhere"] = h5py.ExternalLink(str(path), "reward")
    del file["reward"]
    file["reward"] = h5py.SoftLink("/elsewhere")


def foreign_filter(file: h5py.File, path: Path) -> None:
    del file["action"]
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((33, 2))
    plist.set_filter(h5py.h5z.FILTER_SCALEOFFSET, h5py.h5z.FLAG_OPTIONAL, (2, 0))
    space = h5py.h5s.create_simple((33, 2))
    h5py.h5d.create(file.id, b"action", h5py.h5t.NATIVE_FLOAT, space, dcpl=plist)


def never_written(file: h5py.File, path: Path) -> None:
    del file["reward"]
    file.create_dataset("reward", (33,), "float32")


HOSTILE: dict[Callable[[h5py.File, Path], None], str] = {
    unwritten: "chunks, the others were never written",
    one_giant_chunk: "is stored in chunks of 1584 MB",
    inflating_chunk: "inflates to more than its size",
    external_storage: "lies in another file",
    virtual: "lies in another file",
    external_link: "lies in another file",
    soft_link: "lies in another file or place",
    foreign_filter: "is compressed by filter 6",
    never_written: "were never written",
}


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_hostile_shards(
    shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[h5py.File, Path], None]
) -> None:
    other = tmp_path / "other.hdf5"
    other.write_bytes(shard.read_bytes())
    with h5py.File(shard, "r+") as file:
        make(file, other)
    for command in (["data", str(shard)], ["import", "stable-worldmodel", str(shard), "--out", str(tmp_path / "out")]):
        assert main(command) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert HOSTILE[make] in message and str(shard) in message


def test_doubled_links_are_not_walked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """28 levels, each of which has two names in the level above: 2 to the 28 paths."""
    place = tmp_path / "data"
    place.mkdir()
    (place / "metadata.json").write_text(json.dumps({"data_format": "hdf5"}))
    with h5py.File(place / "main_data.hdf5", "w") as file:
        group = file.create_group("episode_0/observations")
        for _ in range(28):
            inner = group.create_group("a")
            group["b"] = inner
            group = inner
        group["camera"] = np.zeros((3, 16, 16, 3), np.uint8)
    assert main(["import", "minari", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "'observations' is not a tree of at most 1024 fields" in capsys.readouterr().err


def test_a_locked_file_is_in_use_and_not_damaged(shard: Path, tmp_path: Path) -> None:
    with open(shard, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(AimeError, match="is in use by another program") as problem:
            Shard(shard)
    assert "damaged" not in str(problem.value)
    Shard(shard)


def test_too_many_open_files_is_no_damage(shard: Path) -> None:
    used = max(int(name) for name in os.listdir("/proc/self/fd") if name.isdigit())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(used)]  # so that no number below the limit is free
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(held[-1] + 1, hard), hard))
    try:
        with pytest.raises(AimeError, match="too many files are open") as problem:
            Shard(shard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)
    assert "damaged" not in str(problem.value)


@pytest.mark.parametrize("name", ["shard", "import"])
def test_a_pipe_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    commands = {"shard": ["data"], "import": ["import", "stable-worldmodel"]}
    flags = {"shard": [], "import": ["--out", str(tmp_path / "out")]}
    assert main([*commands[name], str(tmp_path / "pipe.h5"), *flags[name]]) == 2
    assert "pipe.h5" in capsys.readouterr().err.splitlines()[-1]


def test_episode_lengths_that_overflow_are_refused(shard: Path) -> None:
    """2^63 - 1 twice and the rest: their sum is 33 modulo 2^64."""
    lengths = np.array([2**63 - 1, 2**63 - 1, 35], np.int64)
    with h5py.File(shard, "r+") as file, np.errstate(over="ignore"):
        del file["ep_len"], file["ep_offset"]
        file["ep_len"], file["ep_offset"] = lengths, np.cumsum(lengths) - lengths
    with pytest.raises(AimeError, match="'ep_len' of episode 0 is 9223372036854775807, expected 1 to 33"):
        Shard(shard)


def test_episodes_of_another_reading_are_whole(shard: Path) -> None:
    """What is written is what another reader of HDF5 finds."""
    episodes: list[Episode] = [synthetic_episode(20, 1), synthetic_episode(13, 2)]
    with h5py.File(shard) as file:
        np.testing.assert_array_equal(file["pixels"][:], np.concatenate([episode.pixels for episode in episodes]))
        np.testing.assert_array_equal(file["action"][:], np.concatenate([episode.action for episode in episodes]))


def test_a_large_compressed_field_is_judged_by_what_the_file_holds_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5_bounds, "MAX_INFLATED_BYTES", 1000)
    values = np.random.default_rng(0).normal(size=(4096, 4)).astype(np.float32)
    with h5py.File(tmp_path / "fields.h5", "w") as file:
        measured = file.create_dataset("state", data=values, chunks=(256, 4), compression="gzip")
        zeros = file.create_dataset("zeros", data=np.zeros_like(values), chunks=(4096, 4), compression="gzip")
        hdf5_bounds.check_whole(measured)
        with pytest.raises(hdf5_bounds.Refused, match="'/zeros' has"):
            hdf5_bounds.check_whole(zeros)


@pytest.mark.parametrize("layout", [{}, {"chunks": (4,)}, {"chunks": (4,), "compression": "gzip", "shuffle": True}])
def test_bytes_of_variable_length(tmp_path: Path, layout: dict[str, object]) -> None:
    path = tmp_path / "rows.h5"
    with h5py.File(path, "w") as file:
        rows = file.create_dataset("rows", (6,), h5py.vlen_dtype(np.uint8), **layout)
        for number in range(6):
            rows[number] = np.full(1000 + number, number, np.uint8)
    with h5py.File(path) as file:
        for number in range(6):
            assert hdf5_bounds.read_bytes(file["rows"], number) == bytes([number]) * (1000 + number)


@pytest.mark.parametrize("layout", [{}, {"chunks": (4,)}])
def test_a_stated_length_is_not_allocated(tmp_path: Path, layout: dict[str, object]) -> None:
    """HDF5 finds that the length is wrong, but only after it has asked for so much memory."""
    path = tmp_path / "rows.h5"
    with h5py.File(path, "w") as file:
        rows = file.create_dataset("rows", (6,), h5py.vlen_dtype(np.uint8), **layout)
        rows[5] = np.zeros(12345, np.uint8)
    content = path.read_bytes()
    # not the size in the heap, which stands before the bytes, but the one in the reference, which has an address after
    places = [at for at in range(len(content) - 12) if content[at : at + 4] == (12345).to_bytes(4, "little")]
    (at,) = [at for at in places if 0 < int.from_bytes(content[at + 4 : at + 12], "little") < len(content)]
    path.write_bytes(content[:at] + (3 * 10**9).to_bytes(4, "little") + content[at + 4 :])
    with h5py.File(path) as file, pytest.raises(hdf5_bounds.Refused, match="row 5, has 3000000000 bytes, expected"):
        hdf5_bounds.read_bytes(file["rows"], 5)
