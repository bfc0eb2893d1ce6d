"""The registry of importers."""

from __future__ import annotations

import importlib
from pathlib import Path

from aime.errors import AimeError
from aime.io.importers.interface import Choice, Opener, Sources

KINDS = {
    "dmc-vb": "dmc_vb",
    "folder": "folder",
    "lerobot": "lerobot",
    "minari": "minari",
    "stable-worldmodel": "stable_worldmodel",
    "v-d4rl": "v_d4rl",
}
"""Module of each kind, with a function `open_source`. It is imported on demand."""


def open_source(kind: str, source: Path, choice: Choice) -> Sources:
    """Open a source of a given kind.

    Raises:
        AimeError: if the kind or the source does not exist, or the source is not of that kind.
    """
    if kind not in KINDS:
        raise AimeError(f"there is no kind {kind!r}; expected one of {', '.join(KINDS)}")
    if not source.exists():
        raise AimeError(f"{source}: no such file or directory, expected a data set of kind {kind}; check the path")
    module = importlib.import_module(f"aime.io.importers.{KINDS[kind]}")
    opener: Opener = module.open_source
    return opener(source, choice)
