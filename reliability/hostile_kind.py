"""What a hostile case is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Hostile:
    """A crafted source.

    Attributes:
        make: writes it into (source, outside); what lies outside must not be read or written.
        command: the format whose command reads it, or that of a run, whose copy is then the source.
        refused: whether only a refusal is right; else an import is as well.
        flags: added to the command.
    """

    make: Callable[[Path, Path], None]
    command: str
    refused: bool = True
    flags: tuple[str, ...] = ()
