"""Gymnasium spaces in Minari's metadata.json, and the parts of an action.

    {"type": "Dict", "subspaces": {"arm": {"type": "Box", "low": […], "high": […]}, "grip": {"type": "Discrete", …}}}

In HDF5, a Dict is a group with a field per key, a Tuple a group with the fields `_index_0`, `_index_1`, …
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aime.errors import AimeError, one_line
from aime.io.importers.action_parts import ActionPart, Choices, Quantities, Switches

MAX_DEPTH = 16
"""Maximum depth of nested spaces."""

MAX_PARTS = 256

_GREATEST_BOUND = 1e6
"""Larger bounds, such as the largest number of a dtype, count as infinite."""

_GREATEST_NAME = 2**53


def action_parts(path: Path, metadata: Mapping[str, Any]) -> dict[str, ActionPart]:
    """The parts of an action by their paths below `actions` in the file, in order; "" for a single one.

    Empty if the metadata has no space, but an environment of Gymnasium.

    Raises:
        AimeError: if the space is damaged, or not a space of actions.
    """
    text = metadata.get("action_space")
    if text is None:
        return {}
    try:
        space = json.loads(text)
        parts = dict(_walk("", space, 0)) if space else {}
    except AimeError as error:
        raise AimeError(f"{path}: 'action_space': {error}") from error
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, AttributeError) as error:
        found = one_line(error)
        raise AimeError(f"{path}: 'action_space' is not a space ({found}); download the data set again") from error
    if len(parts) > MAX_PARTS:
        raise AimeError(f"{path}: 'action_space' has {len(parts)} parts, expected {MAX_PARTS} at most; simplify it")
    return parts


def _walk(name: str, space: Mapping[str, Any], depth: int) -> Iterator[tuple[str, ActionPart]]:
    if depth > MAX_DEPTH:
        raise AimeError(f"has spaces nested {MAX_DEPTH} deep, expected fewer; simplify it")
    kind = space["type"]
    if kind == "Dict":
        for key in sorted(space["subspaces"]):
            yield from _walk(f"{name}/{key}" if name else key, space["subspaces"][key], depth + 1)
    elif kind == "Tuple":
        for index, inner in enumerate(space["subspaces"]):
            yield from _walk(f"{name}/_index_{index}" if name else f"_index_{index}", inner, depth + 1)
    else:
        yield name, _leaf(kind, space)


def _leaf(kind: Any, space: Mapping[str, Any]) -> ActionPart:
    if kind == "Box":
        return _box(space)
    if kind == "Discrete":
        return Choices((_whole(space.get("start", 0)),), (_whole(space["n"]),))
    if kind == "MultiDiscrete":
        counts = tuple(_whole(count) for count in np.ravel(np.array(space["nvec"], object)))
        starts = np.ravel(np.array(space.get("start", [0] * len(counts)), object))
        return Choices(tuple(_whole(start) for start in starts), counts)
    if kind == "MultiBinary":
        size = math.prod(_whole(count) for count in np.ravel(np.array(space["n"], object)))
        if not 1 <= size < 10_000:
            raise AimeError(f"MultiBinary has {size} numbers, expected 1 to 9999; check metadata.json")
        return Switches(size)
    raise AimeError(
        f"{kind!r} is not a space of actions, expected Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple; "
        "import with --no-actions"
    )


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _GREATEST_NAME:
        raise AimeError(f"has {str(value)[:40]!r}, expected a whole number; check metadata.json")
    return value


def _box(space: Mapping[str, Any]) -> Quantities:
    shape = space.get("shape", np.shape(space["low"]))
    size = math.prod(_whole(length) for length in shape)
    bounds = [np.ravel(np.array(space[side], np.float64)) for side in ("low", "high")]
    if not 1 <= size < 10_000 or any(len(bound) != size for bound in bounds):
        raise AimeError(
            f"Box has shape {list(shape)} and {[len(bound) for bound in bounds]} bounds, expected as many; "
            "check metadata.json"
        )
    low, high = bounds
    known = (np.abs(low) <= _GREATEST_BOUND) & (np.abs(high) <= _GREATEST_BOUND)
    low, high = np.where(known, low, np.nan), np.where(known, high, np.nan)
    return Quantities(tuple(low.tolist()), tuple(high.tolist()))
