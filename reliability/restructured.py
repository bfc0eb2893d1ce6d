"""Mutations that leave a file well formed: a field of another type, shape or value, or none."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from reliability.encoding import record

Change = Callable[[Path, random.Random], str]


def change_for(path: Path) -> Change | None:
    """What restructures a file of this kind, if anything does."""
    if ".tfrecord" in path.name:
        return _record
    return {".h5": _hdf5, ".hdf5": _hdf5, ".npz": _npz, ".parquet": _parquet}.get(path.suffix)


def another_array(array: np.ndarray, draw: random.Random) -> np.ndarray:
    """Other rows, axes, types or numbers than an array has."""
    changes: tuple[Callable[[], np.ndarray], ...] = (
        lambda: array[:0],
        lambda: array[:-1],
        lambda: np.concatenate([array, array]),
        lambda: array[..., None],
        lambda: array.reshape(-1),
        lambda: np.asarray(array.reshape(-1)[0]),
        lambda: array.astype(np.float64) * 1e300,
        lambda: np.full(array.shape, np.nan),
        lambda: np.full(array.shape, np.inf, np.float32),
        lambda: np.full(array.shape, -(2**62), np.int64),
        lambda: np.full(array.shape, 2**64 - 1, np.uint64),
        lambda: array.astype(np.complex64),
        lambda: array.astype(np.float16),
        lambda: array.astype(bool),
        lambda: array.astype("S8"),
        lambda: np.zeros(array.shape, [("a", "<i4"), ("b", "<f4")]),
        lambda: array[::-1],
        lambda: -array.astype(np.int64) if array.dtype.kind in "biu" else -array,
    )
    return draw.choice(changes)()


def _hdf5(path: Path, draw: random.Random) -> str:
    """A dataset replaced by another, by a group, by a link to itself, or by nothing."""
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
        name = draw.choice(names)
        array = file[name][()]
        del file[name]
        kind = draw.randrange(8)
        if kind == 0:
            file.create_group(name)
        elif kind == 1:
            file[name] = h5py.SoftLink(f"/{name}")
        elif kind == 2:
            file.create_dataset(name, shape=None, dtype="f4")
        elif kind > 3:
            file[name] = another_array(array, draw)
        return f"change '{name}'"


def _npz(path: Path, draw: random.Random) -> str:
    with np.load(path) as content:
        arrays: dict[str, Any] = {name: content[name] for name in content.files}
    name = draw.choice(list(arrays))
    if draw.random() < 0.15:
        del arrays[name]
    else:
        arrays[name] = another_array(arrays[name], draw)
    np.savez(path, **arrays)
    return f"change '{name}'"


def _parquet(path: Path, draw: random.Random) -> str:
    """A column of other values or of another type, or none."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    number = draw.randrange(table.num_columns)
    name, rows = table.column_names[number], table.num_rows
    values: tuple[list[Any], ...] = (
        [None] * rows,
        ["x"] * rows,
        [b"\xff"] * rows,
        [[1.0]] * rows,
        [[1.0] * (row % 3) for row in range(rows)],
        [[]] * rows,
        [{"a": 1}] * rows,
        [-1] * rows,
        [2**62] * rows,
        [float("nan")] * rows,
        [True] * rows,
    )
    if draw.random() < 0.15:
        table = table.remove_column(number)
    elif draw.random() < 0.15:
        table = table.slice(0, draw.choice((0, 1, rows - 1)))
    else:
        table = table.set_column(number, name, pyarrow.array(draw.choice(values)))
    pyarrow.parquet.write_table(table, path)
    return f"change '{name}'"


def _record(path: Path, draw: random.Random) -> str:
    """The bytes of a record changed under a checksum that is right."""
    from reliability.mutations import KINDS, changed_bytes

    content, bodies = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        bodies.append(content[12 : 12 + length])
        content = content[16 + length :]
    number, kind = draw.randrange(len(bodies)), draw.choice(KINDS[:6])
    bodies[number] = changed_bytes(kind, bodies[number], draw)
    path.write_bytes(b"".join(map(record, bodies)))
    return f"{kind} under a right checksum"
