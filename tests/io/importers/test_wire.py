from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.io.importers.encoding import example, feature, field, varint

from aime.io.importers.wire import (
    WireError,
    bytes_list,
    decode_varints,
    example_features,
    fields,
    float_list,
    int64_list,
    read_varint,
)

INTEGERS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=12)
FLOATS = st.lists(st.floats(width=32, allow_nan=False), max_size=12)
STRINGS = st.lists(st.binary(max_size=20), max_size=6)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=4), st.one_of(INTEGERS, FLOATS, STRINGS), max_size=3), st.booleans())
def test_an_example_comes_back_as_it_was(content: dict[str, list], packed: bool) -> None:
    def encoded(values: list) -> bytes:
        if values and isinstance(values[0], bytes):
            return feature(values)
        kind = np.float32 if values and isinstance(values[0], float) else np.int64
        return feature(np.array(values, kind), packed)

    found = example_features(memoryview(example({name: encoded(values) for name, values in content.items()})))
    assert found.keys() == content.keys()
    for name, values in content.items():
        message = found[name]
        read = [list(map(bytes, bytes_list(message))), float_list(message).tolist(), int64_list(message).tolist()]
        assert values in read if values else read == [[], [], []]


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        for content in example_features(memoryview(data)).values():
            assert sum(map(len, bytes_list(content))) <= len(data)
            assert len(float_list(content)) <= len(data) and len(int64_list(content)) <= len(data)
    except WireError:
        pass


def test_a_length_beyond_the_end_is_refused_before_anything_is_made() -> None:
    with pytest.raises(WireError, match="ends at"):
        list(fields(memoryview(varint(1 << 3 | 2) + varint(2**60) + b"abc")))


def test_fields_of_other_types_and_numbers_are_passed_over() -> None:
    message = varint(7 << 3 | 5) + b"1234" + varint(8 << 3 | 1) + b"12345678" + varint(9 << 3) + varint(300)
    assert example_features(memoryview(message + example({"a": feature([b"x"])}))).keys() == {"a"}
    with pytest.raises(WireError, match="wire type 3"):
        list(fields(memoryview(varint(1 << 3 | 3))))


@given(INTEGERS)
def test_varints_at_once_are_varints_one_by_one(values: list[int]) -> None:
    data = b"".join(map(varint, values))
    assert decode_varints(np.frombuffer(data, np.uint8)).tolist() == values
    offset, found = 0, []
    while offset < len(data):
        value, offset = read_varint(memoryview(data), offset)
        found.append(value - 2**64 if value >= 2**63 else value)
    assert found == values


@pytest.mark.parametrize("data", [b"\x80", b"\x01\xff", b"\x80" * 10 + b"\x01"])
def test_varints_that_do_not_end_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_varints(np.frombuffer(data, np.uint8))
    with pytest.raises(WireError):
        list(fields(memoryview(field(1, b"") + data)))
