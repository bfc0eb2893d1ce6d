"""Small files of other projects' formats, written by their own libraries or by hand, never by AIME."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

Values = Sequence[bytes] | np.ndarray


def frames_of(length: int, size: int, seed: int = 0) -> np.ndarray:
    """`[length, size, size, 3]`: a bright square that moves over a ramp."""
    frames = np.broadcast_to(np.arange(size, dtype=np.uint8)[:, None] * 3, (length, size, size, 3)).copy()
    for step in range(length):
        column = (2 * step + seed) % (size - 4)
        frames[step, 4:8, column : column + 4] = 250, 200, 30 * seed % 256
    return frames


def write_film(path: Path, frames: np.ndarray, codec: str = "mpeg4", rate: int = 10) -> None:
    """A film in the container of the suffix."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as film:
        stream = film.add_stream(codec, rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for frame in frames:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        film.mux(stream.encode(None))


def write_parquet(path: Path, columns: Mapping[str, object]) -> None:
    """A Parquet file, by pyarrow."""
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(dict(columns)), path)


def write_csv(path: Path, columns: Mapping[str, Sequence[float]]) -> None:
    """A CSV file with a line of names."""
    rows = [",".join(columns), *(",".join(map(repr, row)) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def _varint(value: int) -> bytes:
    value %= 2**64
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _feature(values: Values) -> bytes:
    if not isinstance(values, np.ndarray):
        return _field(1, b"".join(_field(1, value) for value in values))
    if values.dtype.kind == "f":
        return _field(2, _field(1, values.astype("<f4").tobytes()))
    return _field(3, _field(1, b"".join(_varint(int(value)) for value in values)))


def example(features: Mapping[str, Values]) -> bytes:
    """A `tf.train.Example`."""
    entries = (_field(1, _field(1, name.encode()) + _field(2, _feature(value))) for name, value in features.items())
    return _field(1, b"".join(entries))


def record(body: bytes) -> bytes:
    """A record of a TFRecord file, with its checksums."""
    length = struct.pack("<Q", len(body))
    return length + struct.pack("<I", masked(length)) + body + struct.pack("<I", masked(body))


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC = _crc_table()


def masked(content: bytes) -> int:
    """CRC-32C as TFRecord masks it."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def tensor(shape: Sequence[int], dtype: str, encoding: str = "none") -> dict[str, object]:
    """A tensor of `features.json`."""
    return {"tensor": {"shape": {"dimensions": [str(n) for n in shape]}, "dtype": dtype, "encoding": encoding}}


def png(width: int, height: int, rows: bytes | None = None, extra: bytes = b"") -> bytes:
    """A PNG file of grey levels: black, or with the given compressed rows; `extra` chunks come before them."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    content = zlib.compress(bytes((width + 1) * height), 9) if rows is None else rows
    chunks = _png_chunk(b"IHDR", header) + extra + _png_chunk(b"IDAT", content) + _png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_text(size: int) -> bytes:
    """A zTXt chunk that inflates to `size` bytes."""
    return _png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(size), 9))


def zeros(size: int) -> bytes:
    """A zlib stream of so many zeros, made without holding them."""
    stream, block = zlib.compressobj(9), bytes(1 << 20)
    parts = [stream.compress(block) for _ in range(size >> 20)]
    return b"".join([*parts, stream.compress(bytes(size & (1 << 20) - 1)), stream.flush()])


def zlib_of(content: bytes) -> bytes:
    """The zlib stream of some bytes."""
    return zlib.compress(content)
