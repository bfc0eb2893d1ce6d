"""An encoder of `tf.train.Example` and TFRecord files, written apart from the decoder, for the tests of that."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aime.io.importers.crc32c import masked_crc32c

Values = Sequence[bytes] | np.ndarray


def varint(value: int) -> bytes:
    value %= 2**64
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(values: Values, packed: bool = True) -> bytes:
    """A Feature message: floats, whole numbers or byte strings."""
    if not isinstance(values, np.ndarray):
        return field(1, b"".join(field(1, value) for value in values))
    if values.dtype.kind == "f":
        floats = values.astype("<f4").tobytes()
        single = b"".join(varint(1 << 3 | 5) + floats[at : at + 4] for at in range(0, len(floats), 4))
        return field(2, field(1, floats) if packed else single)
    numbers = [varint(int(value)) for value in values]
    return field(3, field(1, b"".join(numbers)) if packed else b"".join(varint(1 << 3) + number for number in numbers))


def example(features: Mapping[str, bytes]) -> bytes:
    return field(1, b"".join(field(1, field(1, name.encode()) + field(2, value)) for name, value in features.items()))


def framed(body: bytes) -> bytes:
    length = struct.pack("<Q", len(body))
    return length + struct.pack("<I", masked_crc32c(length)) + body + struct.pack("<I", masked_crc32c(body))


def walker_episode(length: int, seed: int, size: int = 64) -> bytes:
    """A record as DMC-VB has it, with the least that it needs."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (length, size, size, 3), dtype=np.uint8)
    steps = np.arange(length)
    return example(
        {
            "steps/observation/pixels": feature([zlib.compress(frame.tobytes(), 1) for frame in pixels]),
            "steps/observation/position": feature(random.normal(size=8 * length)),
            "steps/observation/velocity": feature(random.normal(size=9 * length)),
            "steps/action": feature(random.uniform(-1, 1, 6 * length)),
            "steps/reward": feature(random.uniform(size=length)),
            "steps/is_terminal": feature((steps == length - 1).astype(np.int64)),
        }
    )


def tensor(shape: Sequence[int], dtype: str, encoding: str = "none") -> dict[str, Any]:
    return {"tensor": {"shape": {"dimensions": [str(n) for n in shape]}, "dtype": dtype, "encoding": encoding}}


def write_walker(place: Path, lengths: Sequence[int], size: int = 64, per_file: int = 2) -> Path:
    """A data set in DMC-VB's layout with one split, several records a file."""
    place.mkdir(parents=True)
    observation = {
        "pixels": tensor((size, size, 3), "uint8", "zlib"),
        "position": tensor((8,), "float64"),
        "velocity": tensor((9,), "float64"),
    }
    step = {
        "observation": {"featuresDict": {"features": observation}},
        "action": tensor((6,), "float32"),
        "reward": tensor((), "float32"),
        "is_terminal": tensor((), "bool"),
    }
    steps = {"sequence": {"feature": {"featuresDict": {"features": step}}}}
    (place / "features.json").write_text(json.dumps({"featuresDict": {"features": {"steps": steps}}}))
    groups = [range(at, min(at + per_file, len(lengths))) for at in range(0, len(lengths), per_file)]
    split = {"name": "train", "shardLengths": [str(len(group)) for group in groups]}
    (place / "dataset_info.json").write_text(json.dumps({"name": "rlds", "fileFormat": "tfrecord", "splits": [split]}))
    for number, group in enumerate(groups):
        records = b"".join(framed(walker_episode(lengths[at], at, size)) for at in group)
        (place / f"rlds-train.tfrecord-{number:05d}-of-{len(groups):05d}").write_bytes(records)
    return place
