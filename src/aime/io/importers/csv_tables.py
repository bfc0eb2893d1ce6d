"""Text tables: separated by commas, semicolons or tabs, decimal points or commas, UTF-8 or UTF-16."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np

from aime.io.importers.files import opened

SUFFIXES = (".csv", ".tsv")

MAX_LINE = 2**20
"""Maximum characters per line."""

MAX_COLUMNS = 4096

MAX_FILE_BYTES = 64 * 2**20
"""Maximum bytes of a text file; larger tables should be NPZ or Parquet."""

MAX_ROWS = 2_000_000
"""Maximum rows per episode: more than five hours at 100 Hz."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WORDS = {"": np.nan, "nan": np.nan, "true": 1.0, "false": 0.0}
_COMMENT = "#"
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}")


def header(path: Path) -> list[str]:
    """The names of the columns, in order; "" without a name.

    Raises:
        ValueError: if there is no header line.
    """
    with _lines(path) as lines:
        return _Reader(path, lines).names


def read_csv(path: Path, limit: int) -> dict[str, np.ndarray]:
    """The columns of a table by name, `[L]`; for columns with text the first text.

    Args:
        path: a file with a header line. Lines that begin with `#` are comments.
        limit: maximum bytes of the numbers in memory.

    Raises:
        ValueError: if it is not such a table, or larger.
    """
    with _lines(path) as lines:
        reader = _Reader(path, lines)
        columns = _Columns(len(reader.names), limit)
        for line, row in reader.rows():
            columns.add(line, [reader.number(cell) for cell in row], row)
        if not columns.length:
            raise ValueError("it has a line of names and no line of numbers, expected one or more")
        reader.check_decimals()
        return columns.by_name(reader.names)


class _Columns:
    """Collects numbers, and the first text of text columns."""

    def __init__(self, count: int, limit: int) -> None:
        self._numbers = [array("d") for _ in range(count)]
        self._texts: list[str | None] = [None] * count
        self._limit = limit
        self.length = 0

    def add(self, line: int, numbers: Sequence[float | None], row: Sequence[str]) -> None:
        """Add a row; None for a value that is not a number."""
        self.length += 1
        if self.length > MAX_ROWS:
            raise ValueError(f"it has more than {MAX_ROWS} rows; split it")
        if self.length * len(self._numbers) * 8 > self._limit:
            raise ValueError(f"it has more numbers than {self._limit / 2**20:.0f} MB hold; split it")
        for index, (number, column) in enumerate(zip(numbers, self._numbers, strict=True)):
            if number is not None:
                column.append(number)
                continue
            column.append(np.nan)
            if self._texts[index] is None:
                self._texts[index] = f"{row[index][:40]!r} on line {line}"

    def by_name(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The named columns, and unnamed ones that are not empty, under generated names."""
        found: dict[str, np.ndarray] = {}
        for index, name in enumerate(names):
            text = self._texts[index]
            values = np.frombuffer(self._numbers[index], np.float64)
            if name or text is not None or not np.isnan(values).all():
                called = name or f"(column {index + 1})"
                found[called] = values if text is None else np.broadcast_to(np.array(text), len(values))
        return found


class _Reader:
    """The names and the rows of a table."""

    def __init__(self, path: Path, lines: Iterator[str]) -> None:
        self._lines, self._line = lines, 0
        first = next(self._content(), "")
        named = re.match(r"sep=(.)\s*$", first)  # written by Excel
        if named:
            first = next(self._content(), "")
        self._delimiter = named[1] if named else "\t" if path.suffix.lower() == ".tsv" else _delimiter_of(first)
        self._points = self._commas = 0
        self._only_thousands = True
        self.names = [name.strip() for name in next(self._parsed([first]), [])]
        self._check_names()

    def _parsed(self, lines: Iterable[str]) -> Iterator[list[str]]:
        return csv.reader(lines, delimiter=self._delimiter, skipinitialspace=True, strict=True)

    def _content(self) -> Iterator[str]:
        for line in self._lines:
            self._line += 1
            if not line.lstrip().startswith(_COMMENT):
                yield line

    def _check_names(self) -> None:
        if not any(self.names):
            raise ValueError("it has no line of names, expected one before the numbers")
        if len(self.names) > MAX_COLUMNS:
            raise ValueError(f"it has {len(self.names)} columns, expected {MAX_COLUMNS} at most")
        if all(self.number(name) is not None for name in self.names):
            raise ValueError(f"line {self._line} holds numbers, expected the names of the columns; add a line of them")
        self._points = self._commas = 0
        self._only_thousands = True

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """The rows with their line numbers.

        Raises:
            ValueError: if the number of fields differs, or an empty line is followed by a row.
        """
        empty = None
        for row in self._parsed(self._content()):
            if not row or (row == [""] and len(self.names) > 1):
                empty = empty or self._line
                continue
            if empty is not None:
                raise ValueError(f"line {empty} is empty, expected a row; remove it or fill it in")
            if len(row) != len(self.names):
                raise ValueError(f"line {self._line} has {len(row)} fields, expected {len(self.names)}")
            yield self._line, row

    def number(self, cell: str) -> float | None:
        """The number in a cell, NaN if empty, None if not a number."""
        text = cell.strip()
        known = _WORDS.get(text.lower())
        if known is not None:
            return known
        if not text.isascii() or "_" in text:  # `float` accepts these
            return None
        if "," in text and self._delimiter != ",":
            self._commas += 1
            text = text.replace(",", ".")
            self._only_thousands &= _THOUSANDS.fullmatch(text) is not None
        elif "." in text:
            self._points += 1
            self._only_thousands &= _THOUSANDS.fullmatch(text) is not None
        try:
            return float(text)
        except ValueError:
            return None

    def check_decimals(self) -> None:
        """Refuse a table in which points or commas may be thousands separators.

        With semicolons between columns, or commas in numbers, either convention is possible.
        """
        if self._points and self._commas:
            raise ValueError("it has numbers with points and numbers with commas, expected one of them for decimals")
        doubtful = "," if self._commas else "." if self._points and self._delimiter == ";" else ""
        if doubtful and self._only_thousands:
            raise ValueError(
                f"it has '{doubtful}' only in numbers like 1{doubtful}234, where it may be a decimal or a thousands "
                "separator; write commas between columns, decimal points, and no thousands separators"
            )


def _delimiter_of(first: str) -> str:
    """The separator: the most frequent of comma, semicolon and tab outside of quotes in the header."""
    bare = re.sub(r'"[^"]*"', "", first)
    return max(",;\t", key=bare.count)


@contextmanager
def _lines(path: Path) -> Iterator[Iterator[str]]:
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE_BYTES:
            raise ValueError(f"it has {size >> 20} MB, expected {MAX_FILE_BYTES >> 20} of text at most; use Parquet")
        start = file.read(4)
        file.seek(0)
        encoding = next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8")
        text = io.TextIOWrapper(file, encoding=encoding, newline="")
        try:
            yield _bounded(text)
        except UnicodeDecodeError as error:
            raise ValueError(f"it is no text in {encoding.upper()} ({error.reason}); save it as UTF-8") from error
        finally:
            text.detach()


def _bounded(text: TextIO) -> Iterator[str]:
    while line := text.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise ValueError(f"it has a line of {MAX_LINE} characters or more, expected a table of numbers")
        if "\0" in line:
            raise ValueError("it has zero bytes, expected text; save it as UTF-8")
        yield line
