"""Cases, the parts that they make up, and what they share: one process that forks, one tiny run."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from reliability.children import run
from reliability.digest import digest_command
from reliability.examples import FORMATS, shard
from reliability.forked import Forker
from reliability.tiny_run import make_run


class Untriable(Exception):
    """A part cannot be tried on this machine; the message says why."""


class Bench:
    """What all cases of a campaign share.

    Attributes:
        place: a directory for everything that is made.
        usual: what a command does to the system with valid input, by the kind of input.
        whole: seconds and outcome of a command that was not interrupted, by its name.
    """

    def __init__(self, place: Path) -> None:
        self.place = place.absolute()
        self.usual: dict[str, set[str]] = {}
        self.whole: dict[str, tuple[float, dict[str, str]]] = {}

    @cached_property
    def forker(self) -> Forker:
        """The process that has AIME imported."""
        return Forker(self.place / "forker")

    @cached_property
    def shards(self) -> Path:
        """A directory of one small shard, of which more than one episode is learned from."""
        path = self.place / "valid" / "learned"
        if not path.exists():
            path.mkdir(parents=True)
            shard(path, range(6))
        return path

    @cached_property
    def digest(self) -> str:
        """Of every value of `shards`."""
        read = run(digest_command(self.shards), self.place / "digest")
        if read.status != 0:
            raise RuntimeError(f"the valid shard cannot be read: {read.err}")
        return read.out

    @cached_property
    def unseen(self) -> Path:
        """A directory of one shard that `run` was not trained on."""
        path = self.place / "valid" / "unseen"
        if not path.exists():
            path.mkdir(parents=True)
            shard(path, range(10, 16))
        return path

    def source(self, name: str) -> Path:
        """A valid source of a format, made once."""
        path = self.place / "valid" / name
        if not path.exists():
            path.mkdir(parents=True)
            FORMATS[name].make(path)
        return path

    @cached_property
    def run(self) -> Path:
        """A run of four steps on `shards`, made once."""
        path = self.place / "valid" / "run"
        if not (path / "checkpoint").exists():
            shutil.rmtree(path, ignore_errors=True)
            make_run(self.shards, path, self.place / "valid")
        return path

    def fresh(self, name: str) -> Path:
        """An empty directory for a case."""
        path = self.place / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def close(self) -> None:
        """End what was started."""
        if "forker" in self.__dict__:
            self.forker.close()


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        name: unique in its part.
        run: tries it in an empty directory, and returns what is wrong, a line each.
        counts: what the table counts of it.
    """

    name: str
    run: Callable[[Path], list[str]]
    counts: dict[str, int] = field(default_factory=lambda: {"cases": 1})


T = TypeVar("T")
Cases = Callable[[Bench, int, int], Iterator[Case]]
"""The cases of a part: (bench, how many, seed)."""


@dataclass(frozen=True)
class Part:
    """A test of the table.

    Attributes:
        title: in the table.
        cases: makes them.
        full: how many `COUNT=full` asks for.
        sample: how many a sample has.
    """

    title: str
    cases: Cases
    full: int
    sample: int


def drawing(seed: int, name: str) -> random.Random:
    """Random numbers that depend on the seed and the case alone, so that a case can be repeated by itself."""
    return random.Random(f"{seed}/{name}")


def sample(everything: Sequence[T], count: int, seed: int) -> list[T]:
    """So many of all cases, in an order drawn from the seed: a smaller sample is the beginning of a larger one."""
    return drawing(seed, "order").sample(everything, len(everything))[:count]
