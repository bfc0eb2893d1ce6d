from __future__ import annotations

import pytest

from aime.data.shards import Attribute
from aime.data.state_names import note_state_names, read_state_names


def test_names_come_back_in_their_order_and_fields_without_numbers_are_left_out() -> None:
    noted = note_state_names({"velocity": 2, "none": 0, "angle": 1})
    assert list(read_state_names(noted, 3).items()) == [("velocity", 2), ("angle", 1)]
    assert note_state_names({"none": 0}) == {}


@pytest.mark.parametrize("value", ["[1, 2]", "{", '{"a": "b"}', '{"a": 2}', 3])
def test_names_of_another_form_or_width_count_as_none(value: Attribute) -> None:
    assert read_state_names({"state_names": value}, 3) == {}
    assert read_state_names({}, 3) == {}
