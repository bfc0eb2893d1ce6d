"""The action columns of a folder's tables: continuous, or discrete if the user says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from aime.errors import AimeError
from aime.io.importers import tables
from aime.io.importers.action_parts import Choices, Switches, observed
from aime.io.importers.interface import BadEpisode

FEW = 64
"""Integers with a smaller range may be discrete; the report names them."""


def find_choices(
    paths: Sequence[Path], action: Sequence[str], discrete: Sequence[str]
) -> tuple[dict[str, Choices | Switches], tuple[str, ...]]:
    """The discrete action columns, with the values that occur in any table.

    Args:
        paths: of all tables.
        action: the action columns.
        discrete: the columns named by the user.

    Returns:
        The values of each column, and lines for the report, also about other columns that may be discrete.

    Raises:
        AimeError: if one is not an action column, or has values that are not integers.
    """
    for name in discrete:
        if name not in action:
            raise AimeError(
                f"--discrete-actions names '{name}', expected columns of actions, found {sorted(action)}; name one of "
                "these, or add it to --action-columns"
            )
    choices: dict[str, Choices | Switches] = {}
    notes: list[str] = []
    for name in discrete:
        choices[name], note = observed(name, _whole(paths, name))
        notes.append(note)
    return choices, (*notes, *_possible(paths, [name for name in action if name not in choices]))


def _whole(paths: Sequence[Path], name: str) -> Iterator[np.ndarray]:
    for path in paths:
        rows = _known(tables.matrix(path, tables.read_table(path), [name]))
        if (rows != np.floor(rows)).any() or (np.abs(rows) > 2**53).any():
            raise AimeError(
                f"{path}: the column '{name}' holds {rows[rows != np.floor(rows)][:1].tolist() or 'huge numbers'}, "
                "expected whole numbers; leave it out of --discrete-actions"
            )
        yield rows.astype(np.int64)


def _possible(paths: Sequence[Path], names: Sequence[str]) -> list[str]:
    """A line for each column with more than two integers in a small range."""
    seen: dict[str, set[float]] = {name: set() for name in names}
    for path in paths:
        if not seen:
            break
        try:
            found = tables.read_table(path)
            for name in list(seen):
                values = _known(tables.matrix(path, found, [name]))
                seen[name] |= set(np.unique(values)[: FEW + 1].tolist()) if values.size else set()
                whole = (values == np.floor(values)).all()
                if not whole or (seen[name] and max(seen[name]) - min(seen[name]) >= FEW):
                    del seen[name]
        except BadEpisode:  # reported when the episode is read
            continue
    return [
        f"'{name}' has integers from {min(values):.0f} to {max(values):.0f} and is read as continuous; if it is "
        f"discrete, import with --discrete-actions '{name}'"
        for name, values in seen.items()
        if len(values) > 2
    ]


def _known(rows: np.ndarray) -> np.ndarray:
    return rows[np.isfinite(rows).all(axis=1)]


def action_matrix(
    path: Path, found: tables.Columns, names: Sequence[str], choices: Mapping[str, Choices | Switches]
) -> Float64[np.ndarray, "L A"]:
    """The actions of a table, with n numbers for a discrete column of n choices; NaN for empty cells.

    Raises:
        BadEpisode: if a column is missing or has other content.
    """
    return np.concatenate([_encoded(path, found, name, choices.get(name)) for name in names], axis=1)


def _encoded(path: Path, found: tables.Columns, name: str, part: Choices | Switches | None) -> np.ndarray:
    rows = tables.matrix(path, found, [name])
    if part is None:
        return rows
    if rows.shape[1] != part.size:
        raise BadEpisode(f"{path}: '{name}' has {rows.shape[1]} numbers a row, expected {part.size}; exclude it")
    known = np.isfinite(rows).all(axis=1)
    encoded = np.full((len(rows), part.width), np.nan)
    encoded[known] = part.encode(rows[known], f"{path}: '{name}'")
    return encoded
