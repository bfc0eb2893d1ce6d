from __future__ import annotations

import pytest

from aime.data.shards import Attribute
from aime.data.state_names import fields_of, note_state_names, number_names, read_state_names


def test_names_come_back_in_their_order_and_fields_without_numbers_are_left_out() -> None:
    noted = note_state_names({"velocity": 2, "none": 0, "angle": 1})
    assert list(read_state_names(noted, 3).items()) == [("velocity", 2), ("angle", 1)]
    assert note_state_names({"none": 0}) == {}


@pytest.mark.parametrize("value", ["[1, 2]", "{", '{"a": "b"}', '{"a": 2}', 3])
def test_names_of_another_form_or_width_count_as_none(value: Attribute) -> None:
    assert read_state_names({"state_names": value}, 3) == {}
    assert read_state_names({}, 3) == {}


def test_numbers_have_names_and_fields_come_back() -> None:
    fields = {"position": 2, "angle": 1, "a[1]": 1}
    numbers = number_names(fields, 4)
    assert numbers == ["position[0]", "position[1]", "angle", "a[1]"]
    assert fields_of(numbers) == fields
    assert number_names(fields, 5) is None and number_names({"a": 2, "a[1]": 1}, 3) is None
    assert fields_of(["a[1]", "a[0]", "b[0]"]) == {"a[1]": 1, "a[0]": 1, "b[0]": 1}
