"""HDF5 files that read others, that are larger than they say, or that never end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from reliability.encoding import frames_of, zeros
from reliability.examples import LENGTH, SIZE, minari, shard, stable_worldmodel
from reliability.hostile_kind import Hostile

FRAME = SIZE * SIZE * 3


def _without(path: Path, name: str) -> h5py.File:
    file = h5py.File(path, "r+")
    del file[name]
    return file


def unwritten_rows(source: Path, outside: Path) -> None:
    """A shard of half a billion rows of which none was ever written."""
    rows = 500_000_000
    with h5py.File(source / "0.h5", "w") as file:
        file.create_dataset("pixels", (rows, SIZE, SIZE, 3), "uint8", chunks=(16, SIZE, SIZE, 3))
        for name, shape, dtype in (
            ("action", (rows, 2), "f4"),
            ("reward", (rows,), "f4"),
            ("terminated", (rows,), "?"),
        ):
            file.create_dataset(name, shape, dtype, chunks=True)
        file["ep_len"], file["ep_offset"] = np.array([rows]), np.array([0])


def giant_chunk(source: Path, outside: Path) -> None:
    """A shard whose frames are one chunk, which inflates to 3 GB."""
    shard(source)
    rows = 3 * 2**30 // FRAME
    with _without(source / "0.h5", "pixels") as file:
        chunks = (rows, SIZE, SIZE, 3)
        pixels = file.create_dataset("pixels", (2 * LENGTH, SIZE, SIZE, 3), "uint8", maxshape=(None, SIZE, SIZE, 3),
                                     chunks=chunks, compression="gzip")  # fmt: skip
        pixels.id.write_direct_chunk((0, 0, 0, 0), zeros(rows * FRAME))


def _linked(make: Callable[[Path], None], name: str) -> tuple[Callable[[Path, Path], None], ...]:
    """Frames of a file that come from outside: as raw storage, a virtual data set, an external link."""

    def stored(source: Path, outside: Path) -> None:
        make(source)
        (outside / "secret.bin").write_bytes(os.urandom(2 * LENGTH * FRAME))
        with _without(source / name, "pixels") as file:
            where = [(f"{outside}/secret.bin", 0, 2 * LENGTH * FRAME)]
            file.create_dataset("pixels", (2 * LENGTH, SIZE, SIZE, 3), "uint8", external=where)

    def virtual(source: Path, outside: Path) -> None:
        make(source)
        with h5py.File(outside / "secret.h5", "w") as file:
            file["pixels"] = frames_of(2 * LENGTH, SIZE)
        layout = h5py.VirtualLayout((2 * LENGTH, SIZE, SIZE, 3), "uint8")
        layout[:] = h5py.VirtualSource(f"{outside}/secret.h5", "pixels", (2 * LENGTH, SIZE, SIZE, 3))
        with _without(source / name, "pixels") as file:
            file.create_virtual_dataset("pixels", layout)

    def linked(source: Path, outside: Path) -> None:
        make(source)
        with h5py.File(outside / "secret.h5", "w") as file:
            file["pixels"] = frames_of(2 * LENGTH, SIZE)
        with _without(source / name, "pixels") as file:
            file["pixels"] = h5py.ExternalLink(f"{outside}/secret.h5", "pixels")

    return stored, virtual, linked


def unknown_filter(source: Path, outside: Path) -> None:
    """Frames under a filter that HDF5 would look for as a library."""
    stable_worldmodel(source)
    path = source / "data.h5"
    content = path.read_bytes()
    # the message of `deflate` (1), which becomes filter 32001
    changed = content.replace(b"\x01\x00\x08\x00\x01\x00\x01\x00deflate", b"\x01\x7d\x08\x00\x01\x00\x01\x00deflate")
    if changed == content:
        raise ValueError(f"{path}: no field has the filter that was to be changed")
    path.write_bytes(changed)


def doubled_links(source: Path, outside: Path) -> None:
    """Groups that hold each other twice, 28 levels deep: 2^28 paths to one field."""
    minari(source)
    with h5py.File(source / "data" / "main_data.hdf5", "r+") as file:
        for episode in file.values():
            node = episode["observations"]
            for _ in range(28):
                inner = node.create_group("a")
                node["b"] = inner
                node = inner
            node["x"] = np.zeros((LENGTH + 1, 2))


def circle(source: Path, outside: Path) -> None:
    """A group that holds itself."""
    minari(source)
    with h5py.File(source / "data" / "main_data.hdf5", "r+") as file:
        file["episode_0/observations/again"] = file["episode_0/observations"]
        file["episode_0/actions_group/again"] = file["episode_0"]


def superscript(source: Path, outside: Path) -> None:
    """An episode whose number is a digit to `isdigit` and none to `int`."""
    minari(source)
    with h5py.File(source / "data" / "main_data.hdf5", "r+") as file:
        file["episode_5²"] = file["episode_1"]


def discrete(source: Path, outside: Path) -> None:
    """A space of 10^18 choices."""
    minari(source)
    space = {"type": "Discrete", "n": 10**18, "start": -(10**30)}
    (source / "data" / "metadata.json").write_text(
        json.dumps({"data_format": "hdf5", "action_space": json.dumps(space)})
    )


def fifo(source: Path, outside: Path) -> None:
    """A pipe by the name of a shard."""
    os.mkfifo(source / "0.h5")


def endless(source: Path, outside: Path) -> None:
    """A link to a device without an end, by the name of a shard."""
    (source / "0.h5").symlink_to("/dev/zero")


_SHARD, _FOREIGN = _linked(shard, "0.h5"), _linked(stable_worldmodel, "data.h5")

HDF5 = {
    "unwritten-rows": Hostile(unwritten_rows, "shard"),
    "giant-chunk": Hostile(giant_chunk, "shard"),
    "shard-external-storage": Hostile(_SHARD[0], "shard"),
    "shard-virtual": Hostile(_SHARD[1], "shard"),
    "shard-external-link": Hostile(_SHARD[2], "shard"),
    "import-external-storage": Hostile(_FOREIGN[0], "stable-worldmodel"),
    "import-virtual": Hostile(_FOREIGN[1], "stable-worldmodel"),
    "import-external-link": Hostile(_FOREIGN[2], "stable-worldmodel"),
    "unknown-filter": Hostile(unknown_filter, "stable-worldmodel"),
    "doubled-links": Hostile(doubled_links, "minari"),
    "circle": Hostile(circle, "minari"),
    "superscript": Hostile(superscript, "minari", refused=False),
    "huge-discrete": Hostile(discrete, "minari"),
    "fifo-shard": Hostile(fifo, "shard"),
    "endless-shard": Hostile(endless, "shard"),
}
