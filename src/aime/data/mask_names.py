"""Names of the ids in masks, as a JSON attribute of shards: {"1": "cart", "2": "pole"}."""

from __future__ import annotations

import json
from collections.abc import Mapping

from aime.data.shards import Attribute

ATTRIBUTE = "mask_names"


def note_mask_names(names: Mapping[int, str]) -> dict[str, Attribute]:
    """The attribute for shards; empty without names.

    Args:
        names: by id, 1 to 255; 0 is the background.
    """
    return {ATTRIBUTE: json.dumps({str(number): name for number, name in names.items()})} if names else {}


def read_mask_names(attributes: Mapping[str, Attribute]) -> dict[int, str]:
    """The names by id, in the order of the ids; empty if the attribute is missing or malformed.

    Args:
        attributes: of a shard.
    """
    try:
        named = {int(number): str(name) for number, name in json.loads(str(attributes.get(ATTRIBUTE, "{}"))).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return dict(sorted(named.items())) if all(0 < number < 256 for number in named) else {}
