"""Two writers of one run, of which the second is refused, and readers that look while a writer saves."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

from reliability.cases import Bench, Case, drawing
from reliability.children import Child, last_line, run
from reliability.readable import leftovers
from reliability.tiny_run import resume_command, train_command
from reliability.watching import Limits

PATIENCE = Limits(seconds=300.0, memory=4 * 2**30)
STEPS = 60
KINDS = ("resume", "reader", "train", "imitate")


def cases(bench: Bench, count: int, seed: int) -> Iterator[Case]:
    """A second `train --resume`, a second `train`, an agent, and a reader, in turn."""
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        name = f"{kind}-{number // len(KINDS)}"
        yield Case(name, (_Reader if kind == "reader" else _Second)(bench, name, seed))


class _Pair:
    def __init__(self, bench: Bench, name: str, seed: int) -> None:
        self._bench, self._kind, self._draw = bench, name.split("-")[0], drawing(seed, name)

    def _writer(self, place: Path) -> tuple[Child, Path]:
        """A training with a checkpoint, which goes on for some seconds."""
        out = place / "run"
        child = Child(train_command(self._bench.shards, out, STEPS), place, PATIENCE)
        while child.watch.poll() and not (out / "checkpoint").exists():
            time.sleep(0.01)
        return child, out

    def _ended(self, child: Child, out: Path) -> list[str]:
        ended = child.wait()
        if ended.status != 0:
            return [f"the first writer ends with {ended.status}: {last_line(ended.err)}"]
        lines = (out / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in lines]
        doubled = [] if steps == sorted(set(steps)) else ["steps are logged twice"]
        return doubled + leftovers(out)


class _Second(_Pair):
    def __call__(self, place: Path) -> list[str]:
        """The second command must be refused, and the first must not notice it."""
        child, out = self._writer(place)
        time.sleep(self._draw.uniform(0, 1))
        command = {
            "resume": resume_command(out, STEPS),
            "train": train_command(self._bench.shards, out, STEPS),
            "imitate": [*resume_command(out, STEPS)[:3], "agent", "imitate", str(out), "--imitation.steps", "2"],
        }[self._kind]
        second = run(command, place / "second", PATIENCE)
        faults = ["the first writer had ended: nothing was tried"] if not child.watch.poll() else []
        if second.status == 0:
            faults.append("the second writer is not refused")
        else:
            faults += [f"second writer: {fault}" for fault in second.faults((2,))]
        if second.status == 2 and "process" not in second.err:
            faults.append(f"the second writer is refused for another reason: {last_line(second.err)}")
        return faults + self._ended(child, out)


class _Reader(_Pair):
    def __call__(self, place: Path) -> list[str]:
        """A reader that looks again and again opens a whole checkpoint each time."""
        child, out = self._writer(place)
        faults, looks = [], 0
        words = ["evaluate", out, "--data", self._bench.unseen, "--out", place / "e.json", "--context", "2"]
        words += ["--horizon", "2", "--samples", "1", "--clips", "1"]
        while child.watch.poll():
            ended = self._bench.forker.run(words, place / "reader", place)
            looks += 1
            if ended.status != 0 or ended.faults():
                faults.append(f"look {looks}: {[*ended.faults(), last_line(ended.err)][0]}")
        return faults[:3] + ([] if looks > 1 else ["the reader looked once only"]) + self._ended(child, out)
