"""The part of the protocol-buffer wire format that `tf.train.Example` uses.

    Example { Features features = 1 }                Features { map<string, Feature> feature = 1 }
    Feature { oneof { BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3 } }
    BytesList { repeated bytes value = 1 }           and so for float and int64

A message is a sequence of fields, each a varint `number << 3 | type` and a value: type 0 a varint, 1 eight bytes, 2 a
varint and that many bytes, 5 four bytes. The numbers of a list are packed into one field or in one field each. Declared
lengths are compared with the available bytes before memory is allocated.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, Shaped, UInt8

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_INT64 = np.dtype(np.int64)

MAX_PARTS = 200_000
"""Maximum number of values in one field each."""

_PIECE = 2**20
"""Bytes of integers decoded at once, which takes forty times as much memory."""


class WireError(ValueError):
    """The bytes are not a message; the text says where."""


def read_varint(data: memoryview, offset: int) -> tuple[int, int]:
    """An unsigned number of up to 64 bits, and the offset after it.

    Raises:
        WireError: if it does not end.
    """
    value = shift = 0
    while offset < len(data) and shift < 64:
        byte = data[offset]
        value |= (byte & 0x7F) << shift
        offset, shift = offset + 1, shift + 7
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, offset
    raise WireError(f"a varint before byte {offset} does not end")


def fields(message: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """The fields of a message: number, wire type and bytes; of a varint the encoded bytes.

    Raises:
        WireError: if a field exceeds the message, or has an invalid type.
    """
    offset = 0
    while offset < len(message):
        key, start = read_varint(message, offset)
        number, kind = key >> 3, key & 7
        if kind == _BYTES:
            length, start = read_varint(message, start)
            offset = start + length
        elif kind == _VARINT:
            _, offset = read_varint(message, start)
        elif kind in _FIXED_SIZES:
            offset = start + _FIXED_SIZES[kind]
        else:
            raise WireError(f"wire type {kind} at byte {start}, expected 0, 1, 2 or 5")
        if offset > len(message):
            raise WireError(f"field {number} at byte {start} ends at {offset}, expected at most {len(message)}")
        yield number, kind, message[start:offset]


def example_features(example: memoryview) -> dict[str, memoryview]:
    """The features of a `tf.train.Example` by name, undecoded.

    Raises:
        WireError: if the bytes are not such a message.
    """
    found: dict[str, memoryview] = {}
    for features in _submessages(example, 1):
        for entry in _submessages(features, 1):
            name, value = b"", memoryview(b"")
            for number, kind, content in fields(entry):
                if kind == _BYTES and number == 1:
                    name = bytes(content)
                elif kind == _BYTES and number == 2:
                    value = content
            found[name.decode("utf-8", errors="replace")] = value
    return found


def bytes_list(feature: memoryview) -> list[memoryview]:
    """The byte strings of a feature; empty if it has another type.

    Raises:
        WireError: if the bytes are not a feature.
    """
    return _few(value for part in _submessages(feature, 1) for value in _submessages(part, 1))


def float_list(feature: memoryview) -> Float32[np.ndarray, " N"]:
    """The floats of a feature; empty if it has another type.

    Raises:
        WireError: if the bytes are not a feature.
    """
    parts = _few(content for part in _submessages(feature, 2) for number, _, content in fields(part) if number == 1)
    if any(len(part) % 4 for part in parts):
        raise WireError("a list of floats whose length is not a multiple of 4 bytes")
    return np.frombuffer(b"".join(parts), "<f4").astype(np.float32, copy=False)


def int64_list(feature: memoryview, dtype: np.dtype[Any] = _INT64) -> Shaped[np.ndarray, " N"]:
    """The integers of a feature, converted without a check; empty if it has another type.

    Raises:
        WireError: if the bytes are not a feature.
    """
    parts = _few(content for part in _submessages(feature, 3) for number, _, content in fields(part) if number == 1)
    data = np.frombuffer(b"".join(parts), np.uint8)
    found, start = [], 0
    while start < len(data):
        stop = start + _PIECE
        if stop < len(data):  # back to the end of a number; decode_varints reports numbers that are too long
            ends = np.flatnonzero(data[stop - 16 : stop] < 0x80)
            stop += int(ends[-1]) - 15 if len(ends) else 0
        found.append(decode_varints(data[start:stop]).astype(dtype))
        start = stop
    return np.concatenate(found) if found else np.zeros(0, dtype)


def decode_varints(data: UInt8[np.ndarray, " N"]) -> Int64[np.ndarray, " M"]:
    """All varints of some bytes, as signed 64-bit integers.

    Raises:
        WireError: if one is longer than ten bytes, or the last does not end.
    """
    ends = np.flatnonzero(data < 0x80)
    if len(data) and (len(ends) == 0 or ends[-1] != len(data) - 1):
        raise WireError("a list of integers whose last one is incomplete")
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)
    lengths = ends - starts + 1 if len(ends) else np.zeros(0, np.int64)
    if len(lengths) and lengths.max() > 10:
        raise WireError(f"an integer of {lengths.max()} bytes, expected 10 at most")
    values = np.zeros(len(lengths), np.uint64)
    for place in range(int(lengths.max(initial=0))):
        rows = np.flatnonzero(lengths > place)
        values[rows] |= (data[starts[rows] + place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    return values.view(np.int64)


def _few(parts: Iterator[memoryview]) -> list[memoryview]:
    """The values as a list, if there are not too many."""
    found = list(itertools.islice(parts, MAX_PARTS + 1))
    if len(found) > MAX_PARTS:
        raise WireError(f"more than {MAX_PARTS} values in fields of their own")
    return found


def _submessages(message: memoryview, wanted: int) -> Iterator[memoryview]:
    return (content for number, kind, content in fields(message) if number == wanted and kind == _BYTES)
