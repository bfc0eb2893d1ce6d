"""The names of the parts of states and actions, as shards note them: {"position": 2, "velocity": 2} in JSON."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence

from aime.data.shards import Attribute

ATTRIBUTE = "state_names"
ACTION_ATTRIBUTE = "action_names"
NAMES = (ACTION_ATTRIBUTE, ATTRIBUTE)


def note_state_names(names: Mapping[str, int]) -> dict[str, Attribute]:
    """For the shards; nothing where there is no state.

    Args:
        names: the width of each field, in the order of the vector.
    """
    return _noted(ATTRIBUTE, names)


def note_action_names(names: Mapping[str, int]) -> dict[str, Attribute]:
    """The same for actions: their joints or columns, where the source names them."""
    return _noted(ACTION_ATTRIBUTE, names)


def _noted(attribute: str, names: Mapping[str, int]) -> dict[str, Attribute]:
    known = {name: width for name, width in names.items() if width}
    return {attribute: json.dumps(known)} if known else {}


def read_state_names(attributes: Mapping[str, Attribute], width: int) -> dict[str, int]:
    """The fields and their widths, in the order of the vector; empty where the shards name none, or others.

    Args:
        attributes: of a data set.
        width: of its state vector.
    """
    return _read(ATTRIBUTE, attributes, width)


def read_action_names(attributes: Mapping[str, Attribute], width: int) -> dict[str, int]:
    """The same for actions."""
    return _read(ACTION_ATTRIBUTE, attributes, width)


def _read(attribute: str, attributes: Mapping[str, Attribute], width: int) -> dict[str, int]:
    try:
        named = json.loads(str(attributes.get(attribute, "{}")))
        sizes = {str(name): int(size) for name, size in named.items()}
    except (ValueError, TypeError, AttributeError):
        return {}
    return sizes if sum(sizes.values()) == width else {}


def number_names(names: Mapping[str, int], width: int) -> list[str] | None:
    """A name for every number of a vector, "angle" or "position[0]", "position[1]"; None where they have none.

    Args:
        names: the fields and their widths, in the order of the vector.
        width: of the vector.
    """
    found = [name if size == 1 else f"{name}[{at}]" for name, size in names.items() for at in range(size)]
    return found if len(found) == width and len(set(found)) == width else None


def fields_of(numbers: Sequence[str]) -> dict[str, int]:
    """The inverse of `number_names`: fields and their widths, in order. A field is counted from 0 without a gap."""
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
    """Where in the state vector each field stands.

    Args:
        names: the fields and their widths, in the order of the vector.
    """
    starts = itertools.accumulate(names.values(), initial=0)
    return {name: range(first, first + width) for (name, width), first in zip(names.items(), starts, strict=False)}


def in_another_order(own: Mapping[str, Attribute], others: Mapping[str, Attribute], widths: tuple[int, int]) -> str:
    """What has the same names in another order, in words for a message; empty where nothing has, or they are unknown.

    Args:
        own: attributes of some shards.
        others: those of others.
        widths: of actions and states, of both.
    """
    for attribute, width in zip(NAMES, widths, strict=True):
        if own.get(attribute) != others.get(attribute):
            mine, theirs = (number_names(_read(attribute, each, width), width) for each in (own, others))
            if mine and theirs and mine != theirs and sorted(mine) == sorted(theirs):
                return f"{attribute.removesuffix('_names')} {', '.join(mine)}, expected the order {', '.join(theirs)}"
    return ""
