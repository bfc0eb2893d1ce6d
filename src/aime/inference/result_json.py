"""Results of a run as JSON files with every field by its name, and a definition of each term."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from aime.errors import AimeError
from aime.primitives.config_io import Plain, nan_as_null

T = TypeVar("T")

_DEFINITIONS = "definitions"


def to_result_json(content: Mapping[str, Plain], definitions: Mapping[str, str]) -> str:
    """The JSON of a result; NaN and infinity are null."""
    return json.dumps(nan_as_null({**content, _DEFINITIONS: dict(definitions)}), indent=1, allow_nan=False)


def from_result_json(text: str, source: str, kind: str, verb: str, build: Callable[[dict[str, Any]], T]) -> T:
    """What `build` makes of the fields that `to_result_json` was given.

    Args:
        text: the JSON.
        source: the file it came from, for messages.
        kind: of the result, for messages: "an evaluation".
        verb: the command that writes such a file.
        build: takes the fields by name; what it raises of a wrong one says what is wrong.

    Raises:
        AimeError: if it is not JSON, or has other fields.
    """
    try:
        content = json.loads(text)
        content.pop(_DEFINITIONS)
        return build(content)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise AimeError(f"{source}: not {kind}: {error}; write it again with `aime {verb}`") from error
