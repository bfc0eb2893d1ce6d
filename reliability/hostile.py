"""Crafted files: what they ask for must not happen, and the answer is one line, in time and in little memory."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from reliability.cases import Bench, Case, Untriable
from reliability.children import Ended, aime
from reliability.examples import FORMATS
from reliability.fuzz import RUN_COMMANDS
from reliability.hostile_film import FILMS
from reliability.hostile_hdf5 import HDF5
from reliability.hostile_kind import Hostile
from reliability.hostile_names import NAMES
from reliability.hostile_picture import PICTURES
from reliability.hostile_table import TABLES
from reliability.hostile_text import TEXTS
from reliability.tiny_run import unseal
from reliability.tracing import can_trace, traced

HOSTILE: dict[str, Hostile] = {**PICTURES, **FILMS, **HDF5, **TABLES, **TEXTS, **NAMES}
PROGRAMS = ("gs", "ffmpeg", "ffprobe", "sh", "touch", "convert")
"""Programs that a library may think of; those that a case finds on its path leave a mark outside."""


def cases(bench: Bench, count: int, seed: int) -> Iterator[Case]:
    """All of them, or the first `count` after a turn by the seed."""
    if not can_trace():
        raise Untriable("strace is not installed or may not trace, expected it for hostile files: apt install strace")
    names = list(HOSTILE)
    turned = names[seed % len(names) :] + names[: seed % len(names)]
    yield from (Case(name, _Try(bench, HOSTILE[name])) for name in (turned if count >= 30 else turned[:count]))


class _Try:
    def __init__(self, bench: Bench, hostile: Hostile) -> None:
        self._bench, self._hostile = bench, hostile

    def __call__(self, place: Path) -> list[str]:
        """Make the files, run the command under strace, and compare with what a valid source of the kind does."""
        usual = self._usual()
        source, outside = place / "source", place / "outside"
        for directory in (source, outside):
            directory.mkdir()
        if self._hostile.command in RUN_COMMANDS:
            source.rmdir()
            shutil.copytree(self._bench.run, source)
            unseal(source)
        self._hostile.make(source, outside)
        ended, events = self._traced(place)
        faults = ended.faults((2,) if self._hostile.refused else (0, 2))
        faults += [event for event in sorted(events - usual)][:5]
        faults += _marks(place, ended)
        return faults

    def _usual(self) -> set[str]:
        """What the command does with a valid source, with its own place taken out."""
        kind = self._hostile.command
        if kind not in self._bench.usual:
            place = self._bench.fresh(f"usual/{kind}")
            valid = self._bench.run if kind in RUN_COMMANDS else self._bench.source(kind)
            shutil.copytree(valid, place / "source")
            (place / "outside").mkdir()
            _, self._bench.usual[kind] = self._traced(place)
        return self._bench.usual[kind]

    def _traced(self, place: Path) -> tuple[Ended, set[str]]:
        kind = self._hostile.command
        words = (RUN_COMMANDS[kind] if kind in RUN_COMMANDS else FORMATS[kind].command).split()
        if kind in RUN_COMMANDS or kind == "shard":
            (place / "out").mkdir()
        data = self._bench.unseen
        if kind in RUN_COMMANDS:
            shutil.copytree(data, place / "out" / "data")
            data = place / "out" / "data"
        filled = [word.format(source=place / "source", out=place / "out", data=data) for word in words]
        env = {"PATH": f"{_programs(place)}{os.pathsep}{os.environ['PATH']}"}
        return traced(aime(*filled, *self._hostile.flags), place, env=env)


def _programs(place: Path) -> Path:
    """A directory of programs that leave a mark outside when they are started."""
    directory = place / "cache" / "programs"
    directory.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        path = directory / name
        path.write_text(f"#!/bin/bash\necho {name} > {shlex.quote(str(place / 'outside' / 'started'))}\n")
        path.chmod(0o755)
    return directory


def _marks(place: Path, ended: Ended) -> list[str]:
    """What a trace cannot show: escapes that reach the terminal, and marks of what was run."""
    faults = []
    if (place / "outside" / "started").exists():
        faults.append(f"a program was started: {(place / 'outside' / 'started').read_text().strip()}")
    if "\x1b]" in ended.out + ended.err or "\x1b[31m" in ended.out + ended.err:
        faults.append("an escape of a file's name reaches the terminal")
    return faults
