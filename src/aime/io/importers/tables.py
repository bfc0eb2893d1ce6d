"""Tables of numbers: CSV, TSV, NPZ, NPY, Parquet."""

from __future__ import annotations

import csv
import importlib
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from aime.errors import AimeError, one_line
from aime.io.importers import csv_tables
from aime.io.importers.files import check_regular, opened
from aime.io.importers.interface import BadEpisode

SUFFIXES = (*csv_tables.SUFFIXES, ".npz", ".npy", ".parquet")

MAX_TABLE_BYTES = 256 * 2**20
"""Maximum bytes of a table in memory; 100,000 steps of 300 numbers take half of it."""

MAX_WIDTH = 10_000
"""Maximum number of values of an action or a state."""

BATCH_ROWS = 4096
"""Rows of a Parquet file decoded at a time."""

NPY_COLUMN = "action"
"""Name of the array of an NPY file."""

Columns = dict[str, np.ndarray]
"""Arrays by name, `[L]` or `[L, …]`; a text column has its first text and its place in every row."""

_DAMAGE = (OSError, ValueError, LookupError, TypeError, OverflowError, MemoryError, EOFError, NotImplementedError)


def read_table(path: Path, names: Sequence[str] | None = None) -> Columns:
    """The columns of a table.

    Args:
        path: a .csv or .tsv file (with a header line), .npz, .npy or .parquet.
        names: columns to read, also as prefixes; all by default.

    Raises:
        BadEpisode: if it cannot be read, is too large, or has two columns of one name.
    """
    wanted = (lambda name: True) if names is None else (lambda name: name.startswith(tuple(names)))
    suffix = path.suffix.lower()
    with _told(path):
        if suffix in csv_tables.SUFFIXES:
            _check_names(csv_tables.header(path))
            found = csv_tables.read_csv(path, MAX_TABLE_BYTES)
            return {name: column for name, column in found.items() if wanted(name)}
        if suffix == ".npz":
            return _read_npz(path, wanted)
        return _read_npy(path) if suffix == ".npy" else read_parquet(path, wanted)


def column_names(path: Path) -> list[str]:
    """The names of a table's columns.

    Raises:
        BadEpisode: as `read_table` does.
    """
    suffix = path.suffix.lower()
    with _told(path):
        if suffix in csv_tables.SUFFIXES:
            names = [name for name in csv_tables.header(path) if name]
        elif suffix == ".npz":
            with opened(path) as file, zipfile.ZipFile(file) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist()]
        elif suffix == ".npy":
            names = [NPY_COLUMN]
        else:
            check_regular(path)
            names = list(pyarrow("pyarrow.parquet").read_schema(path).names)
        _check_names(names)
        return names


def widths(path: Path, names: Sequence[str]) -> tuple[int, ...]:
    """The numbers per row of some columns.

    Raises:
        BadEpisode: as `read_table` and `matrix` do.
    """
    if path.suffix.lower() in csv_tables.SUFFIXES:
        return (1,) * len(names)
    found = read_table(path, names) if names else {}
    return tuple(matrix(path, found, [name]).shape[1] for name in names)


class _told:
    """Converts errors of libraries about damaged tables to `BadEpisode`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, AimeError) or not isinstance(error, (*_DAMAGE, zipfile.BadZipFile, zlib.error, csv.Error)):
            return
        raise BadEpisode(
            f"{self._path}: cannot be read ({one_line(error)}), expected a table of numbers; write it again"
        ) from error


def _check_names(names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name and name in seen:
            raise ValueError(f"it has two columns of the name '{name}', expected one of each; rename one")
        seen.add(name)


def _check_size(size: float) -> None:
    if size > MAX_TABLE_BYTES:
        raise ValueError(f"it would take {size / 2**20:.0f} MB of memory, expected {MAX_TABLE_BYTES >> 20} at most")


def _read_npz(path: Path, wanted: Callable[[str], bool]) -> Columns:
    with opened(path) as file, zipfile.ZipFile(file) as archive:
        members = {entry.filename: entry for entry in archive.infolist()}
        _check_names(archive.namelist())
        chosen = [name for name in members if name.endswith(".npy") and wanted(name.removesuffix(".npy"))]
        _check_size(sum(members[name].file_size for name in chosen))
        found = {}
        for name in chosen:
            with archive.open(name) as member:
                found[name.removesuffix(".npy")] = _read_array(member, members[name].file_size)
        return found


def _read_npy(path: Path) -> Columns:
    with opened(path) as file:
        return {NPY_COLUMN: _read_array(file, path.stat().st_size)}


def _read_array(file: IO[bytes], size: int) -> np.ndarray:
    """An array in NumPy's format. Headers that declare more than the file has, and pickled objects, are refused."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"it has version {version} of NumPy's format, expected 1.0 or 2.0")
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, columns_first, kind = reader(file)
    if kind.hasobject or kind.names is not None:
        raise ValueError(f"it holds {kind}, expected plain numbers")
    count = int(np.prod(shape, dtype=object)) if shape else 1
    if not shape or count * kind.itemsize > size:
        raise ValueError(f"an array of shape {shape} does not fit its {size} bytes, expected [L] or [L, A]")
    _check_size(count * kind.itemsize)
    content = file.read(count * kind.itemsize)
    array = np.frombuffer(content, kind, count)
    return array.reshape(shape[::-1]).transpose() if columns_first else array.reshape(shape)


def read_parquet(path: Path, wanted: Callable[[str], bool]) -> Columns:
    """The requested columns of a Parquet file.

    Raises:
        AimeError: if pyarrow is not installed.
        BadEpisode: if it is not a regular file.
        ValueError: if the file is damaged or too large.
    """
    parquet = pyarrow("pyarrow.parquet")
    check_regular(path)
    with parquet.ParquetFile(path) as file:
        _check_names(file.schema_arrow.names)
        names = [name for name in file.schema_arrow.names if wanted(name)]
        if len(names) > csv_tables.MAX_COLUMNS:
            raise ValueError(f"it has {len(names)} columns, expected {csv_tables.MAX_COLUMNS} at most")
        parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        size = 0
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names):
            for name in names:
                part = _values(name, batch.column(name))
                size += part.nbytes
                parts[name].append(part)
            _check_size(size)
    return {name: _joined(name, arrays) for name, arrays in parts.items()}


def _values(name: str, column: Any) -> np.ndarray:
    """An Arrow column as numbers, `[n]` or for lists `[n, …]`; a text column as its first text."""
    arrow, types = pyarrow("pyarrow"), pyarrow("pyarrow").types
    rows, kind = len(column), column.type
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        if column.null_count:
            raise ValueError(f"column '{name}' has rows without a list")
        inner = _values(name, column.flatten())
        if len(inner) % max(rows, 1) or (not types.is_fixed_size_list(kind) and _uneven(column)):
            raise ValueError(f"column '{name}' has lists of several lengths")
        return inner.reshape(rows, -1, *inner.shape[1:]) if rows else inner.reshape(0, 0)
    if types.is_timestamp(kind):
        ticks = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit]
        numbers: np.ndarray = column.cast(arrow.int64()).to_numpy(zero_copy_only=False) / ticks
        return numbers
    if types.is_decimal(kind):
        column = column.cast(arrow.float64())
    elif not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_null(kind)):
        first = next((value for value in (column[row].as_py() for row in range(min(rows, 1)))), "")
        return np.broadcast_to(np.array(f"{str(first)[:40]!r} on row 0"), rows)
    array: np.ndarray = column.to_numpy(zero_copy_only=False)
    return (
        np.array([np.nan if value is None else value for value in array], np.float64)
        if array.dtype == object
        else array
    )


def _uneven(column: Any) -> bool:
    lengths = np.diff(column.offsets.to_numpy(zero_copy_only=False))
    return len(lengths) > 0 and bool((lengths != lengths[0]).any())


def _joined(name: str, arrays: Sequence[np.ndarray]) -> np.ndarray:
    if len({array.shape[1:] for array in arrays}) > 1:
        raise ValueError(f"column '{name}' has lists of several lengths")
    if any(array.dtype.kind == "U" for array in arrays):
        return np.broadcast_to(arrays[0][0], sum(map(len, arrays)))
    return np.concatenate(arrays) if arrays else np.zeros(0)


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


def one_column(path: Path, columns: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """A column of one number per row, `[L]`.

    Raises:
        BadEpisode: as `matrix` does, or if rows have several numbers.
    """
    rows = matrix(path, columns, [name])
    if rows.shape[1] != 1:
        raise BadEpisode(f"{path}: '{name}' has {rows.shape[1]} numbers a row, expected one; name or write another")
    return rows[:, 0]


def matrix(path: Path, columns: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Columns as a matrix `[L, A]`; those of several numbers per row are flattened.

    Raises:
        BadEpisode: if one is missing, is not numeric, or lengths differ.
    """
    for name in names:
        if name not in columns:
            raise BadEpisode(f"{path}: has no column '{name}', found {sorted(columns)}; add it or name others")
        if columns[name].dtype.kind not in "fiub":
            found = columns[name][0] if columns[name].dtype.kind == "U" and len(columns[name]) else columns[name].dtype
            raise BadEpisode(f"{path}: column '{name}' holds {found}, expected numbers; convert it")
    check_lengths(path, columns, names)
    wide = sum(columns[name].size // max(len(columns[name]), 1) for name in names)
    if wide > MAX_WIDTH:
        raise BadEpisode(f"{path}: columns {list(names)[:8]} have {wide} numbers a row, expected {MAX_WIDTH} at most")
    parts = [columns[name].reshape(len(columns[name]), -1).astype(np.float64) for name in names]
    return np.concatenate(parts, axis=1)


def check_lengths(path: Path, columns: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    """Check that columns have equal numbers of rows, 1 or more.

    Raises:
        BadEpisode: naming a column without rows, or the columns and their lengths.
    """
    lengths = {name: len(columns[name]) for name in names if name in columns}
    empty = next((name for name, length in lengths.items() if not length), None)
    if empty is not None:
        raise BadEpisode(f"{path}: column '{empty}' has no rows, expected one for each frame; write it again")
    if len(set(lengths.values())) > 1:
        raise BadEpisode(f"{path}: columns {lengths} differ in their numbers of rows, expected as many each; fix it")
