"""Names of the fields of states and actions, as a JSON attribute of shards: {"position": 2, "velocity": 2}."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence

from aime.data.shards import Attribute

ATTRIBUTE = "state_names"
ACTION_ATTRIBUTE = "action_names"
NAMES = (ACTION_ATTRIBUTE, ATTRIBUTE)


def note_state_names(names: Mapping[str, int]) -> dict[str, Attribute]:
    """The attribute of state names for shards; empty without a state.

    Args:
        names: the width of each field, in the order of the vector.
    """
    return _attribute(ATTRIBUTE, names)


def note_action_names(names: Mapping[str, int]) -> dict[str, Attribute]:
    """The attribute of action names (joints or columns) for shards."""
    return _attribute(ACTION_ATTRIBUTE, names)


def _attribute(attribute: str, names: Mapping[str, int]) -> dict[str, Attribute]:
    known = {name: width for name, width in names.items() if width}
    return {attribute: json.dumps(known)} if known else {}


def read_state_names(attributes: Mapping[str, Attribute], width: int) -> dict[str, int]:
    """The state's fields and their widths, in order; empty if there are none or they do not sum to `width`.

    Args:
        attributes: of a data set.
        width: of its state vector.
    """
    return _read(ATTRIBUTE, attributes, width)


def read_action_names(attributes: Mapping[str, Attribute], width: int) -> dict[str, int]:
    """The actions' fields and their widths, as `read_state_names`."""
    return _read(ACTION_ATTRIBUTE, attributes, width)


def _read(attribute: str, attributes: Mapping[str, Attribute], width: int) -> dict[str, int]:
    try:
        named = json.loads(str(attributes.get(attribute, "{}")))
        sizes = {str(name): int(size) for name, size in named.items()}
    except (ValueError, TypeError, AttributeError):
        return {}
    return sizes if sum(sizes.values()) == width else {}


def number_names(names: Mapping[str, int], width: int) -> list[str] | None:
    """A name for every number of a vector, "angle" or "position[0]", "position[1]"; None without unique names.

    Args:
        names: the fields and their widths, in the order of the vector.
        width: of the vector.
    """
    found = [name if size == 1 else f"{name}[{at}]" for name, size in names.items() for at in range(size)]
    return found if len(found) == width and len(set(found)) == width else None


def fields_of(numbers: Sequence[str]) -> dict[str, int]:
    """The inverse of `number_names`: fields and their widths, in order."""
    fields: dict[str, int] = {}
    at = 0
    while at < len(numbers):
        base, length = numbers[at].removesuffix("[0]"), 0
        while at + length < len(numbers) and numbers[at + length] == f"{base}[{length}]":
            length += 1
        if length < 2 or base in fields or base in numbers:
            base, length = numbers[at], 1
        fields[base] = length
        at += length
    return fields


def entries_by_name(names: Mapping[str, int]) -> dict[str, range]:
    """The indices of each field in the state vector.

    Args:
        names: the fields and their widths, in the order of the vector.
    """
    starts = itertools.accumulate(names.values(), initial=0)
    return {name: range(first, first + width) for (name, width), first in zip(names.items(), starts, strict=False)}


def order_mismatch(own: Mapping[str, Attribute], others: Mapping[str, Attribute], widths: tuple[int, int]) -> str:
    """A text for a message if states or actions have the same names in another order; otherwise empty.

    Args:
        own: attributes of shards.
        others: attributes of other shards.
        widths: of actions and states.
    """
    for attribute, width in zip(NAMES, widths, strict=True):
        if own.get(attribute) != others.get(attribute):
            mine, theirs = (number_names(_read(attribute, each, width), width) for each in (own, others))
            if mine and theirs and mine != theirs and sorted(mine) == sorted(theirs):
                return f"{attribute.removesuffix('_names')} {', '.join(mine)}, expected the order {', '.join(theirs)}"
    return ""
