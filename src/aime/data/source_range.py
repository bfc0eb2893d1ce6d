"""The action range in exported files, whose actions are in the source's units instead of [-1, 1].

The attributes' names differ from a shard's, so that actions are not scaled twice.
"""

from __future__ import annotations

from collections.abc import Mapping

from aime.data.action_scale import ActionScale
from aime.data.shards import Attribute
from aime.errors import AimeError

_PAIRS = {"action_low": "source_action_low", "action_high": "source_action_high"}
"""Attributes of a shard and of an exported file."""


def note_range(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """The attributes of an exported file, from those of the shards; empty without a range."""
    return {there: attributes[here] for here, there in _PAIRS.items() if here in attributes}


def read_range(attributes: Mapping[str, Attribute], width: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Lower and upper bounds of the actions; None if the file has none or the width differs."""
    try:
        scale = ActionScale.of_attributes(
            {here: attributes[there] for here, there in _PAIRS.items() if there in attributes}
        )
    except AimeError:
        return None
    return None if scale is None or scale.width != width else (scale.low, scale.high)
