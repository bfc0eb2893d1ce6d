"""Names of files that are no text, that speak to the terminal, or that lead in circles."""

from __future__ import annotations

import os
from pathlib import Path

from reliability.encoding import frames_of, write_csv, write_film
from reliability.examples import rlds, rows_of
from reliability.hostile_kind import Hostile


def no_text(source: Path, outside: Path) -> None:
    """A name that is not UTF-8, of a valid film."""
    write_film(source / "0.mp4", frames_of(6, 32))
    (source / "0.mp4").rename(os.fsdecode(os.fsencode(source) + b"/\xff\xfe.mp4"))
    write_csv(source / "0.csv", rows_of())
    (source / "0.csv").rename(os.fsdecode(os.fsencode(source) + b"/\xff\xfe.csv"))


def no_text_damaged(source: Path, outside: Path) -> None:
    """Such a name in a message."""
    Path(os.fsdecode(os.fsencode(source) + b"/\xff\xfe.mp4")).write_bytes(b"no film")


def escapes(source: Path, outside: Path) -> None:
    """A name that would set the terminal's title and colour."""
    (source / "\x1b]0;owned\x07\x1b[31mred.mp4").write_bytes(b"no film")


def newline(source: Path, outside: Path) -> None:
    """A name that would end the line of a message and begin another."""
    (source / "a\naime import: all is well\n.mp4").write_bytes(b"no film")


def circle_of_links(source: Path, outside: Path) -> None:
    """A directory that holds itself by links."""
    rlds(source)
    (source / "again").symlink_to(".")
    (source / "self").symlink_to("self")


NAMES = {
    "name-no-text": Hostile(no_text, "films", refused=False),
    "name-no-text-damaged": Hostile(no_text_damaged, "films", flags=("--no-actions",)),
    "name-escapes": Hostile(escapes, "films", flags=("--no-actions",)),
    "name-newline": Hostile(newline, "films", flags=("--no-actions",)),
    "circle-of-links": Hostile(circle_of_links, "rlds", refused=False),
}
