"""The recurrences to choose from by `model.dynamics.kind`: one file each, and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aime.dynamics.recurrences.interface import Recurrence
from aime.dynamics.recurrences.lstm import LSTM
from aime.dynamics.recurrences.mingru import MinGRU

RECURRENCES: Mapping[str, Callable[[int, int], Recurrence]] = {
    "lstm": LSTM,
    "mingru": MinGRU,
}
"""By name: from the widths of input and belief to a recurrence."""
