"""Formatting of numbers and intervals for tables."""

from __future__ import annotations

import math

NO_INTERVAL = "one episode: no interval"


def number_text(value: float, form: str) -> str:
    """A number, or a dash if it is not finite."""
    return format(value, form) if math.isfinite(value) else "-"


def bounds_text(bounds: tuple[float, float] | None, form: str) -> str:
    """The bounds of an interval, such as 0.52…0.63; empty for None."""
    return "" if bounds is None else "…".join(number_text(end, form) for end in bounds)


def counted(number: int, name: str) -> str:
    """A number and a noun, such as "1 clip" or "3 clips"."""
    return f"{number} {name}" if number == 1 else f"{number} {name}s"
