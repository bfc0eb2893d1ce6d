"""The order of pictures in a directory, by the numbers in their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np

from aime.io.importers.files import is_litter
from aime.io.importers.interface import BadEpisode, in_order
from aime.io.importers.pictures import FORMATS

SAME_STRIDE = 0.6
"""Share of equal distances from which on numbers are a count. Others are times, which are uneven."""

_DECIMAL = re.compile(r"(\D*)(\d+\.\d+)")


def pictures_in(directory: Path) -> list[Path]:
    """The pictures of a directory: 9 before 10, and 0.25 before 0.5 where all names are such numbers."""
    found = in_order(path for path in directory.iterdir() if path.suffix.lower() in FORMATS and not is_litter(path))
    decimals = [_DECIMAL.fullmatch(path.stem) for path in found]
    if any(match is None for match in decimals) or len({match[1] for match in decimals if match}) != 1:
        return found
    return sorted(found, key=lambda path: Decimal(re.sub(r"^\D*", "", path.stem)))


def check_names(paths: Sequence[Path]) -> None:
    """Check that names give an order without gaps.

    Raises:
        BadEpisode: if names differ in more than their numbers, two have the same numbers, or a number is missing.
    """
    patterns: dict[str, Path] = {}
    for path in paths:
        patterns.setdefault(re.sub(r"[0-9]+", "0", path.stem.lower()), path)
    if len(patterns) > 1:
        first, second = [path.name for path in patterns.values()][:2]
        raise BadEpisode(
            f"{paths[0].parent}: holds pictures with names like '{first}' and '{second}', expected names that differ "
            "only in their numbers, because their order is unknown; move or rename one kind"
        )
    numbers = [[int(part[:4000]) for part in re.findall(r"[0-9]+", path.stem)] for path in paths]
    for before, after, here, following in zip(paths, paths[1:], numbers, numbers[1:], strict=False):
        if here == following:
            raise BadEpisode(f"{after}: has the number of '{before.name}', expected one picture of each; remove one")
    changing = [column for column in zip(*numbers, strict=True) if len(set(column)) > 1]
    if len(changing) != 1 or len(paths) < 3 or _DECIMAL.fullmatch(paths[0].stem):
        return
    strides = np.diff(np.array(changing[0], dtype=object))
    usual = sorted(strides)[len(strides) // 2]
    gaps = np.flatnonzero(strides >= 1.5 * usual)
    if len(gaps) and (strides == usual).mean() >= SAME_STRIDE:
        at = int(gaps[0])
        raise BadEpisode(
            f"{paths[at]}: is followed by '{paths[at + 1].name}', expected numbers {usual} apart as in the others; add "
            "what is missing, or number the pictures again if nothing is"
        )
