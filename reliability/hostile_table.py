"""Tables and records that are larger than they look, or that hold programs."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np

from reliability import encoding
from reliability.encoding import frames_of, png, tensor, write_film, write_parquet, zeros
from reliability.examples import LENGTH, lerobot_2, rlds_description, rlds_numbers, rows_of
from reliability.hostile_kind import Hostile


def _film(source: Path) -> None:
    write_film(source / "0.mp4", frames_of(LENGTH, 32))


def parquet_of_zeros(source: Path, outside: Path) -> None:
    """A small Parquet file of a hundred million zeros in each of four columns."""
    import pyarrow
    import pyarrow.parquet

    _film(source)
    block = pyarrow.table({f"action_{number}": np.zeros(10_000_000) for number in range(4)})
    with pyarrow.parquet.ParquetWriter(source / "0.parquet", block.schema) as file:
        for _ in range(10):
            file.write_table(block)


def large_csv(source: Path, outside: Path) -> None:
    """A CSV file of 200 MB."""
    _film(source)
    with (source / "0.csv").open("w") as file:
        file.write("action_0,action_1\n")
        for _ in range(200):
            file.write("0,0\n" * 262_144)


def wide_csv(source: Path, outside: Path) -> None:
    """A CSV file of a million columns."""
    _film(source)
    names = ",".join(f"action_{number}" for number in range(1_000_000))
    row = ",".join(["0"] * 1_000_000)
    (source / "0.csv").write_text("\n".join([names, *[row] * LENGTH]))


def unclosed_csv(source: Path, outside: Path) -> None:
    """One quote that is never closed, and 60 MB of NULs behind it."""
    _film(source)
    (source / "0.csv").write_bytes(b'action_0,"action_1\n' + bytes(60 << 20))


def fifo_table(source: Path, outside: Path) -> None:
    """A pipe by the name of a table."""
    _film(source)
    os.mkfifo(source / "0.csv")


class _Touch:
    """Unpickling it starts a program."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"echo pickle > {self.path}",)


def pickled_npz(source: Path, outside: Path) -> None:
    """An array of objects, which numpy would unpickle."""
    _film(source)
    array = np.array([_Touch(outside / "started")] * LENGTH, object)
    np.savez(source / "0.npz", action_0=array)


def npz_bomb(source: Path, outside: Path) -> None:
    """An archive of some MB whose array has 3 GB."""
    _film(source)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (3 * 2**27,)})
    with (
        zipfile.ZipFile(source / "0.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("action_0.npy", "w", force_zip64=True) as file,
    ):
        file.write(header.getvalue())
        for _ in range(96):
            file.write(bytes(32 << 20))


def npz_outside(source: Path, outside: Path) -> None:
    """An archive whose members have names with dots."""
    _film(source)
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(LENGTH))
    with zipfile.ZipFile(source / "0.npz", "w") as archive:
        for name in ("action_0.npy", "../../outside/evil.npy", f"{outside}/evil.npy"):
            archive.writestr(name, buffer.getvalue())


def rlds_vectors(source: Path, outside: Path) -> None:
    """A record whose states inflate to 5 GB, each within the limit."""
    size = 8_000_000
    rlds_description(source, {"pixels": tensor((32, 32, 3), "uint8", "zlib"), "x": tensor((size,), "float64", "zlib")})
    steps, random = 80, np.random.default_rng(0)
    state, frame = zeros(size * 8), encoding.zlib_of(bytes(32 * 32 * 3))
    features: dict[str, encoding.Values] = {
        "steps/observation/pixels": [frame] * steps,
        "steps/observation/x": [state] * steps,
        **rlds_numbers(random, steps),
    }
    _records(source, features)


def _records(source: Path, features: dict[str, encoding.Values]) -> None:
    body = encoding.record(encoding.example(features))
    (source / "rlds-train.tfrecord-00000-of-00001").write_bytes(body * 2)


def rlds_shapeless(source: Path, outside: Path) -> None:
    """Pictures of no declared size, which grow from 16 pixels to 16 megapixels."""
    image = {"image": {"shape": {"dimensions": ["-1", "-1", "3"]}, "dtype": "uint8", "encodingFormat": "png"}}
    rlds_description(source, {"pixels": image})
    large = png(4000, 4000, zeros(4001 * 4000))
    features: dict[str, encoding.Values] = {"steps/observation/pixels": [png(16, 16), *[large] * 99]}
    _records(source, {**features, **rlds_numbers(np.random.default_rng(0), 100)})


def long_record(source: Path, outside: Path) -> None:
    """A record of 2^62 bytes, under a checksum that is right."""
    rlds_description(source, {"pixels": tensor((32, 32, 3), "uint8", "zlib")})
    length = struct.pack("<Q", 1 << 62)
    content = length + struct.pack("<I", encoding.masked(length)) + bytes(64)
    (source / "rlds-train.tfrecord-00000-of-00001").write_bytes(content)


def lerobot_outside(source: Path, outside: Path) -> None:
    """Templates that lead out of the data set."""
    lerobot_2(source)
    info = json.loads((source / "meta" / "info.json").read_text())
    write_parquet(outside / "rows.parquet", rows_of())
    write_film(outside / "film.mp4", frames_of(LENGTH, 32))
    info |= {"data_path": "../outside/rows.parquet", "video_path": f"{outside}/film.mp4"}
    (source / "meta" / "info.json").write_text(json.dumps(info))


def lerobot_linked(source: Path, outside: Path) -> None:
    """A table that is a link to one outside."""
    lerobot_2(source)
    path = next((source / "data").rglob("*.parquet"))
    path.rename(outside / "rows.parquet")
    path.symlink_to(outside / "rows.parquet")


def lerobot_numbers(source: Path, outside: Path) -> None:
    """Lengths and rates that no data set has."""
    lerobot_2(source)
    info = json.loads((source / "meta" / "info.json").read_text())
    (source / "meta" / "info.json").write_text(json.dumps({**info, "fps": -1e300, "chunks_size": -1}))
    lines = ['{"episode_index": 0, "length": 1000000000000000000}', '{"episode_index": -1, "length": -5}']
    (source / "meta" / "episodes.jsonl").write_text("\n".join(lines))


TABLES = {
    "parquet-of-zeros": Hostile(parquet_of_zeros, "films"),
    "csv-of-200-mb": Hostile(large_csv, "films"),
    "csv-of-1e6-columns": Hostile(wide_csv, "films"),
    "csv-unclosed": Hostile(unclosed_csv, "films"),
    "fifo-table": Hostile(fifo_table, "films"),
    "npz-pickled": Hostile(pickled_npz, "films"),
    "npz-bomb": Hostile(npz_bomb, "films"),
    "npz-outside": Hostile(npz_outside, "films", refused=False),
    "rlds-vectors": Hostile(rlds_vectors, "rlds"),
    "rlds-shapeless": Hostile(rlds_shapeless, "rlds", refused=False),
    "rlds-long-record": Hostile(long_record, "rlds"),
    "lerobot-outside": Hostile(lerobot_outside, "lerobot-2"),
    "lerobot-linked": Hostile(lerobot_linked, "lerobot-2"),
    "lerobot-numbers": Hostile(lerobot_numbers, "lerobot-2"),
}
