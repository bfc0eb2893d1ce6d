"""Tables of numbers beside a film: CSV, NPZ, Parquet."""

from __future__ import annotations

import csv
import importlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aime.data.importers.interface import BadEpisode
from aime.errors import AimeError

SUFFIXES = (".csv", ".npz", ".parquet")

MAX_TABLE_BYTES = 256 * 2**20
"""A table that would be larger than this in memory is refused: 100,000 steps of 300 numbers have half of it."""

Columns = dict[str, np.ndarray]
"""By name, `[L]` or `[L, …]`."""


def read_table(path: Path, names: Sequence[str] | None = None) -> Columns:
    """The columns of a table.

    Args:
        path: a file that ends in .csv (with a line of names), .npz or .parquet.
        names: read these alone, and those that begin with them; all by default.

    Raises:
        BadEpisode: if it cannot be read, or holds something other than numbers where they are wanted.
    """
    wanted = (lambda name: True) if names is None else (lambda name: name.startswith(tuple(names)))
    try:
        if path.suffix == ".csv":
            found = _read_csv(path)
            return {name: column for name, column in found.items() if wanted(name)}
        return _read_npz(path, wanted) if path.suffix == ".npz" else read_parquet(path, wanted)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, csv.Error) as error:
        if isinstance(error, AimeError):
            raise
        text = " ".join(str(error).split())
        raise BadEpisode(f"{path}: cannot be read ({text}), expected a table of numbers; write it again") from error


def _check_size(path: Path, size: int) -> None:
    if size > MAX_TABLE_BYTES:
        raise BadEpisode(f"{path}: would take {size / 2**20:.0f} MB of memory, expected 256 at most; split it")


def _read_csv(path: Path) -> Columns:
    _check_size(path, path.stat().st_size)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} lines, expected one of names and one or more of numbers")
    names, body = [name.strip() for name in rows[0]], rows[1:]
    odd = next((number for number, row in enumerate(body, 2) if len(row) != len(names)), None)
    if odd is not None:
        raise ValueError(f"line {odd} has {len(body[odd - 2])} fields, expected {len(names)}")
    return {name: _numbers(name, [row[index] for row in body]) for index, name in enumerate(names)}


def _numbers(name: str, texts: list[str]) -> np.ndarray:
    """Numbers, or the texts where a column has others: it matters only if that column is wanted."""
    truths = {"true": "1", "false": "0", "": "nan"}
    try:
        return np.array([float(truths.get(text.strip().lower(), text)) for text in texts])
    except ValueError:
        return np.array(texts, dtype=str)


def _read_npz(path: Path, wanted: Any) -> Columns:
    with zipfile.ZipFile(path) as archive:
        _check_size(path, sum(entry.file_size for entry in archive.infolist() if wanted(entry.filename)))
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files if wanted(name)}


def read_parquet(path: Path, wanted: Any) -> Columns:
    """The columns of a Parquet file whose names are wanted.

    Raises:
        AimeError: if pyarrow is not installed.
        ValueError: if the file is damaged.
    """
    parquet = pyarrow("pyarrow.parquet")
    with parquet.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if wanted(name)]
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        _check_size(path, sum(group.total_byte_size for group in groups))
        table = file.read(columns=names)
    return {name: _stacked(name, table.column(name).to_pylist()) for name in names}


def _stacked(name: str, values: list[Any]) -> np.ndarray:
    if any(isinstance(value, list) for value in values) and len({len(value) for value in values}) > 1:
        raise ValueError(f"column '{name}' has lists of several lengths")
    if any(isinstance(value, str | bytes | dict) for value in values):
        return np.array([str(value) for value in values])
    return np.array([np.nan if value is None else value for value in values])


def pyarrow(module: str) -> Any:
    """A module of pyarrow.

    Raises:
        AimeError: if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise AimeError(
            "pyarrow is not installed, expected it for Parquet files; pip install 'aime[import]'"
        ) from error


def matrix(path: Path, columns: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Some columns side by side: `[L, A]`; those of several numbers a row are flattened.

    Raises:
        BadEpisode: if one is missing, holds something other than numbers, or lengths differ.
    """
    for name in names:
        if name not in columns:
            raise BadEpisode(f"{path}: has no column '{name}', found {sorted(columns)}; add it or name others")
        if columns[name].dtype.kind not in "fiub":
            raise BadEpisode(f"{path}: column '{name}' holds {columns[name].dtype}, expected numbers; convert it")
    lengths = {len(columns[name]) for name in names}
    if len(lengths) > 1:
        raise BadEpisode(f"{path}: columns {list(names)} have {sorted(lengths)} rows, expected as many each; mend it")
    parts = [columns[name].reshape(len(columns[name]), -1).astype(np.float64) for name in names]
    return np.concatenate(parts, axis=1)
