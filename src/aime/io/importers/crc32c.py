"""CRC-32C, the checksum of TFRecord files, vectorised with NumPy.

The remainder is linear over GF(2). Stretches of the data are reduced in parallel, four bytes of each at a time. Then
the remainders are combined in pairs: the remainder of A followed by B is that of A, shifted by the length of B, plus
that of B.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import UInt8, UInt32

POLYNOMIAL = 0x82F63B78
"""Castagnoli's polynomial, bits reversed. RFC 3720, appendix B.4."""

_STRETCHES = (4096, 64)
"""Numbers of parallel stretches: the first for the part that they divide evenly, the next for the rest."""

_ONES = 0xFFFFFFFF

Buffer = bytes | memoryview


def masked_crc32c(data: Buffer) -> int:
    """The form in TFRecord files: rotated by 15 bits, plus a constant."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & _ONES


def crc32c(data: Buffer) -> int:
    """The CRC-32C of bytes, 0 to 2^32 - 1; about 300 MB/s for long data."""
    rest = np.frombuffer(data, np.uint8)
    register = _ONES
    for stretches in _STRETCHES:
        body = len(rest) // (4 * stretches) * 4 * stretches
        if body:
            register = int(_moved(np.array([register], np.uint32), body)[0]) ^ _reduced(rest[:body], stretches)
            rest = rest[body:]
    for byte in rest.tolist():
        register = int(_TABLE[(register ^ byte) & 0xFF]) ^ (register >> 8)
    return register ^ _ONES


def _reduced(body: UInt8[np.ndarray, " N"], stretches: int) -> int:
    """The remainder of bytes whose length is a multiple of `stretches` 32-bit words, from a register of 0."""
    # after the transposition the words of one step are contiguous, which outweighs the copy
    steps = np.ascontiguousarray(body.view("<u4").reshape(stretches, -1).T)
    remainders = np.zeros(stretches, np.uint32)
    low, high = _LOW_TABLE, _HIGH_TABLE
    for words in steps:
        remainders = remainders ^ words
        remainders = low.take(remainders & 0xFFFF) ^ high.take(remainders >> 16)
    return _joined(remainders, 4 * len(steps))


def _make_table() -> UInt32[np.ndarray, " 256"]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(POLYNOMIAL), table >> 1).astype(np.uint32)
    return table


_TABLE = _make_table()


def _followed(words: UInt32[np.ndarray, " W"], bytes_: int) -> UInt32[np.ndarray, " W"]:
    """The remainders of registers after a number of zero bytes."""
    for _ in range(bytes_):
        words = _TABLE[words & 0xFF] ^ (words >> 8)
    return words


_LOW_TABLE = _followed(np.arange(2**16, dtype=np.uint32), 4)
_HIGH_TABLE = _followed(np.arange(2**16, dtype=np.uint32) << 16, 4)
"""Tables for a register's lower and upper half after four bytes."""


def _joined(remainders: UInt32[np.ndarray, " S"], length: int) -> int:
    """The remainder of consecutive stretches of `length` bytes; their number is a power of two."""
    while len(remainders) > 1:
        remainders = _moved(remainders[::2], length) ^ remainders[1::2]
        length *= 2
    return int(remainders[0])


def _moved(remainders: UInt32[np.ndarray, " S"], length: int) -> UInt32[np.ndarray, " S"]:
    """Remainders after `length` zero bytes."""
    return _apply(_zeros(length), remainders)


def _apply(matrix: UInt32[np.ndarray, " 32"], vectors: UInt32[np.ndarray, " S"]) -> UInt32[np.ndarray, " S"]:
    """A 32x32 matrix over GF(2), given by its columns, times vectors of 32 bits."""
    bits = (vectors[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    return np.bitwise_xor.reduce(np.where(bits == 1, matrix, np.uint32(0)), axis=1)


@functools.lru_cache(maxsize=256)
def _zeros(length: int) -> UInt32[np.ndarray, " 32"]:
    """The matrix of a shift by `length` zero bytes, by repeated squaring."""
    if length == 1:
        units = np.uint32(1) << np.arange(32, dtype=np.uint32)
        return _TABLE[units & 0xFF] ^ (units >> 8)
    half = _zeros(length // 2)
    square = _apply(half, half)
    return _apply(_zeros(1), square) if length % 2 else square
