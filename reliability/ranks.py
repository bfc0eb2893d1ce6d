"""Two processes under torchrun, of which one dies or freezes: the other ends in a minute, and the run goes on."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from reliability.cases import Bench, Case, drawing
from reliability.children import Child, last_line
from reliability.readable import unreadable
from reliability.tiny_run import resume_command, train_command
from reliability.watching import Limits, session

SECONDS = 60.0
PATIENCE = Limits(seconds=300.0, memory=6 * 2**30)
STEPS = 400
"""More than a rank takes before its end."""


def cases(bench: Bench, count: int, seed: int) -> Iterator[Case]:
    """Killed and frozen in turn, of the first rank and of the second."""
    for number in range(count):
        name = f"{'killed' if number % 2 == 0 else 'frozen'}-rank-{number // 2 % 2}-{number // 4}"
        yield Case(name, _Hurt(bench, name, seed), {"ranks": 1})


class _Hurt:
    def __init__(self, bench: Bench, name: str, seed: int) -> None:
        self._bench, self._name, self._seed = bench, name, seed

    def __call__(self, place: Path) -> list[str]:
        """Train in two processes, hurt one after some steps, and time how the other ends."""
        out = place / "run"
        child = Child(_torchrun(train_command(self._bench.shards, out, STEPS)), place, PATIENCE)
        while child.watch.poll() and not (out / "checkpoint").exists():
            time.sleep(0.05)
        time.sleep(drawing(self._seed, self._name).uniform(0, 2))
        if not child.watch.poll():
            return [f"it ended before a rank was hurt: {last_line(child.wait().err)}"]
        victim = _rank(child, self._name.split("-")[2])
        if victim is None:
            child.watch.kill()
            return ["no process has that rank"]
        os.kill(victim, signal.SIGKILL if self._name.startswith("killed") else signal.SIGSTOP)
        faults = self._ends(child, victim)
        faults += unreadable(out)
        ended = Child(resume_command(out, _step(out) + 2), place, PATIENCE).wait()
        return faults + ([f"it does not go on: {last_line(ended.err)}"] if ended.status != 0 else [])

    def _ends(self, child: Child, victim: int) -> list[str]:
        """How long the other rank lives, and whether it says what happened."""
        started, faults = time.monotonic(), []
        while child.watch.poll() and _workers(child, victim) and time.monotonic() - started < SECONDS + 30:
            time.sleep(0.1)
        seconds = time.monotonic() - started
        if seconds > SECONDS:
            faults.append(f"the other rank ends after {seconds:.0f} s, expected {SECONDS:.0f}")
        if _exists(victim):
            os.kill(victim, signal.SIGKILL)
        ended = child.wait()
        lines = [line for line in ended.err.splitlines() if line.startswith("aime train:")]
        if len(lines) != 1:
            faults.append(f"{len(lines)} lines of aime's own, expected 1: {lines or last_line(ended.err)}")
        return faults


def _torchrun(command: list[str]) -> list[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [*launch, *command[1:]]


def _workers(child: Child, besides: int) -> list[int]:
    """The processes that train, without the launcher."""
    return [pid for pid in _family(child.watch.pid) if pid not in (child.watch.pid, besides) and _variable(pid, "RANK")]


def _rank(child: Child, rank: str) -> int | None:
    return next((pid for pid in _family(child.watch.pid) if _variable(pid, "RANK") == rank), None)


def _family(leader: int) -> list[int]:
    """A process and all below it; torchrun gives each rank a session of its own."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue
            if fields[0] != b"Z":
                parents.setdefault(int(fields[1]), []).append(int(name))
    found, open_ = {leader, *session(leader)}, [leader]
    while open_:
        below = parents.get(open_.pop(), [])
        found.update(below)
        open_ += below
    return sorted(found)


def _variable(pid: int, name: str) -> str | None:
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    prefix = f"{name}=".encode()
    return next((entry.removeprefix(prefix).decode() for entry in content if entry.startswith(prefix)), None)


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _step(out: Path) -> int:
    state = next(path for path in (out / "checkpoint/state.json", out / "checkpoint.old/state.json") if path.exists())
    return int(json.loads(state.read_text())["step"])
