"""The range of actions, as an exported file notes it, whose actions are in the source's units and not in [-1, 1].

The attributes have other names than a shard's, so that nobody scales the numbers twice.
"""

from __future__ import annotations

from collections.abc import Mapping

from aime.data.action_scale import ActionScale
from aime.data.shards import Attribute
from aime.errors import AimeError

_PAIRS = {"action_low": "source_action_low", "action_high": "source_action_high"}
"""A shard's attributes and those of an exported file."""


def note_range(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """For an exported file, from the attributes of the shards; nothing where they note no range."""
    return {there: attributes[here] for here, there in _PAIRS.items() if here in attributes}


def read_range(attributes: Mapping[str, Attribute], width: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """The least and greatest of each action; None where the file notes none, or one of another width."""
    try:
        scale = ActionScale.of_attributes(
            {here: attributes[there] for here, there in _PAIRS.items() if there in attributes}
        )
    except AimeError:
        return None
    return None if scale is None or scale.width != width else (scale.low, scale.high)
