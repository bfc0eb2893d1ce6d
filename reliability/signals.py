"""SIGINT, SIGTERM and SIGHUP at every stage of a training: what is saved goes on, and one line says so."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from reliability.cases import Bench, Case, sample
from reliability.children import Child, Ended, last_line
from reliability.readable import leftovers, unreadable
from reliability.tiny_run import resume_command, train_command
from reliability.watching import Limits
from reliability.workloads import STEPS

SIGNALS = {"int": signal.SIGINT, "term": signal.SIGTERM, "hup": signal.SIGHUP}
STATUSES = (0, 130)
PATIENCE = Limits(seconds=120.0, memory=4 * 2**30)


def _started(child: Child, out: Path) -> bool:
    """Python runs and the command is importing what it needs."""
    return child.watch.seconds > 0.7


def _reads(child: Child, out: Path) -> bool:
    return out.exists()


def _steps(child: Child, out: Path) -> bool:
    return (out / "metrics.jsonl").exists()


def _saves(child: Child, out: Path) -> bool:
    return any(out.glob("checkpoint.tmp*"))


def _finetunes(child: Child, out: Path) -> bool:
    return (out / "dynamics_finetuning.jsonl").exists()


STAGES: dict[str, Callable[[Child, Path], bool]] = {
    "importing": _started,
    "reading": _reads,
    "training": _steps,
    "saving": _saves,
    "dynamics-finetuning": _finetunes,
}


def cases(bench: Bench, count: int, seed: int) -> Iterator[Case]:
    """Every signal at every stage, once, and twice within 0.05 s."""
    everything = [(name, stage, twice) for twice in (False, True) for stage in STAGES for name in SIGNALS]
    for name, stage, twice in sample(everything, count, seed):
        yield Case(f"{name}-{stage}{'-twice' if twice else ''}", _Signalled(bench, name, stage, twice), {"signals": 1})


class _Signalled:
    def __init__(self, bench: Bench, name: str, stage: str, twice: bool) -> None:
        self._bench, self._name, self._stage, self._twice = bench, name, stage, twice

    def __call__(self, place: Path) -> list[str]:
        """Train, signal at the stage, look at how it ended, and go on."""
        out = place / "run"
        child = Child(train_command(self._bench.shards, out, STEPS), place, PATIENCE)
        while child.watch.poll() and not STAGES[self._stage](child, out):
            time.sleep(0.002)
        if not child.watch.poll():
            ended = child.wait()
            return [f"the test itself failed: it ends with {ended.status} before this stage: {last_line(ended.err)!r}"]
        child.signal(SIGNALS[self._name])
        if self._twice:
            time.sleep(0.05)
            child.signal(SIGNALS[self._name])
        ended = child.wait()
        faults = self._graceful(ended) + (unreadable(out) if out.exists() else [])
        return faults + self._goes_on(place, out)

    def _graceful(self, ended: Ended) -> list[str]:
        if ended.stopped:
            return [ended.stopped]
        if "Traceback" in ended.err:
            return [f"traceback: {last_line(ended.err)}"]
        allowed = (*STATUSES, 128 + SIGNALS[self._name])
        if self._stage == "importing" and ended.status == -SIGNALS[self._name]:
            return []  # before Python has come to AIME's own code the signal ends it, and there is nothing to lose
        if ended.status not in allowed:
            return [f"exit status {ended.status}, expected one of {allowed}: {last_line(ended.err)!r}"]
        said = last_line(ended.err)
        return (
            [] if ended.status == 0 or "interrupted" in said else [f"it does not say that it was interrupted: {said!r}"]
        )

    def _goes_on(self, place: Path, out: Path) -> list[str]:
        begun = (out / "config.yaml").exists()
        command = resume_command(out, STEPS) if begun else train_command(self._bench.shards, out, STEPS)
        ended = Child(command, place, PATIENCE).wait()
        if ended.status != 0:
            return [f"it does not go on: {ended.stopped or ended.status}: {last_line(ended.err)}"]
        return leftovers(out)
