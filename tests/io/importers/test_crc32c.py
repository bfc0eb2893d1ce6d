from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aime.io.importers.crc32c import POLYNOMIAL, crc32c, masked_crc32c


def bitwise(data: bytes) -> int:
    """The definition, a bit at a time."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (POLYNOMIAL if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "expected"),
    [  # RFC 3720, appendix B.4
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_known_values(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


@given(st.binary(max_size=700))
def test_it_is_the_definition(data: bytes) -> None:
    assert crc32c(data) == bitwise(data)


@pytest.mark.parametrize("length", [255, 256, 16_383, 16_384, 50_001])
def test_stretches_are_joined(length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    assert crc32c(memoryview(data)) == bitwise(data)


def test_the_masked_form_is_what_tensorflow_writes() -> None:
    first = next((Path(__file__).parent / "rlds").rglob("*.tfrecord-00000*")).read_bytes()
    assert masked_crc32c(first[:8]) == int.from_bytes(first[8:12], "little")
