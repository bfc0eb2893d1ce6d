"""SIGKILL at random moments: nothing unreadable is left, and the same command ends with the same bytes."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from reliability.cases import Bench, Case, drawing
from reliability.children import Child, last_line
from reliability.readable import leftovers, unfinished, unreadable
from reliability.watching import Limits
from reliability.workloads import WORKLOADS

KILLS = 4
"""In a row, of one command, before it may end."""
PATIENCE = Limits(seconds=300.0, memory=4 * 2**30)


def cases(bench: Bench, count: int, seed: int) -> Iterator[Case]:
    """Chains of kills: half of training, the rest of the other commands in turn."""
    others = [name for name in WORKLOADS if name != "train"]
    for number in range(-(-count // KILLS)):
        name = "train" if number % 2 == 0 else others[number // 2 % len(others)]
        counts = {"kills": 0}
        case = f"{name}-{number}"
        yield Case(case, Chain(bench, name, drawing(seed, case), counts), counts)


class Chain:
    """Kills in a row of one command, then its end."""

    def __init__(
        self, bench: Bench, name: str, draw: random.Random, counts: dict[str, int], kills: int = KILLS
    ) -> None:
        """Of the workload of that name; the kills that hit are added to `counts`."""
        self._bench, self._load, self._name, self._draw, self._counts = bench, WORKLOADS[name], name, draw, counts
        self._kills = kills

    def __call__(self, place: Path) -> list[str]:
        """Kill and go on, some times; then let it end, and compare with one that was never killed."""
        seconds, expected = self._uninterrupted(place)
        self._load.prepare(self._bench, place)
        faults: list[str] = []
        while self._counts["kills"] < self._kills:
            if not self._killed(place, seconds):
                # it ended before its kill: begin again
                shutil.rmtree(place / self._load.out, ignore_errors=True)
                self._load.prepare(self._bench, place)
                continue
            self._counts["kills"] += 1
            faults += unreadable(place / self._load.out)
        return faults + self._finished(place, expected)

    def _killed(self, place: Path, seconds: float) -> bool:
        """Start or go on, and kill after a random time, or as soon as something is being written."""
        child = Child(self._command(place), place, PATIENCE)
        moment = self._draw.uniform(0.1, 1.0) * seconds
        at_writing, delay = self._draw.random() < 0.4, self._draw.uniform(0, 0.03)
        while child.watch.poll():
            if at_writing and child.watch.seconds > moment / 2 and _writes(place / self._load.out):
                time.sleep(delay)
                break
            if child.watch.seconds > moment * (2 if at_writing else 1):
                break
            time.sleep(0.002)
        alive = child.watch.poll()
        child.watch.kill()
        child.wait()
        return alive

    def _command(self, place: Path) -> list[str]:
        begun = (place / self._load.out / self._load.begun).exists() if self._load.begun else False
        return (self._load.go_on if begun else self._load.start)(self._bench, place)

    def _finished(self, place: Path, expected: dict[str, str]) -> list[str]:
        ended = Child(self._command(place), place, PATIENCE).wait()
        if ended.stopped or ended.status != 0:
            return [f"after the kills it ends with {ended.stopped or ended.status}: {last_line(ended.err)}"]
        found = self._load.result(place)
        names = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        return [f"{name} differs from that of a command never killed" for name in names] + leftovers(
            place / self._load.out
        )

    def _uninterrupted(self, beside: Path) -> tuple[float, dict[str, str]]:
        """Seconds, and the outcome, of the command without a kill; once a campaign."""
        if self._name not in self._bench.whole:
            # as deep as the case: a manifest holds the path from the run to its data
            deep = beside.relative_to(self._bench.place).parent
            place = self._bench.fresh(str(deep / f"uninterrupted-{self._name}"))
            self._load.prepare(self._bench, place)
            ended = Child(self._load.start(self._bench, place), place, PATIENCE).wait()
            if ended.status != 0:
                raise RuntimeError(f"{self._name} without a kill ends with {ended.status}: {last_line(ended.err)}")
            self._bench.whole[self._name] = ended.seconds, self._load.result(place)
        return self._bench.whole[self._name]


def _writes(directory: Path) -> bool:
    try:
        return any(unfinished(path.relative_to(directory)) for path in directory.rglob("*"))
    except OSError:
        return False  # what was there has just got its name
