"""A full disk, a directory that cannot be written, limits on files, sizes and memory: one line, and nothing lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from reliability.cases import Bench, Case, sample
from reliability.children import Child, aime, last_line
from reliability.examples import FORMATS
from reliability.readable import leftovers, unreadable
from reliability.tiny_run import resume_command, train_command
from reliability.watching import Limits
from reliability.workloads import STEPS, WORKLOADS, outcome

PATIENCE = Limits(seconds=300.0, memory=4 * 2**30)
FILLER = "filler"
"""What fills the disk."""
LEFT, LEFT_FOR_IMPORT = 40_000, 4_000
"""Bytes that it leaves: less than the command writes. An import writes one small shard."""


def cases(bench: Bench, count: int, seed: int) -> Iterator[Case]:
    """Every shortage of every command that writes."""
    possible = [name for name in SHORTAGES if name != "full-disk" or os.getuid() == 0]  # a mount needs root
    found = [(shortage, command) for shortage in possible for command in COMMANDS]
    for shortage, command in sample(found, count, seed):
        yield Case(f"{shortage}-{command}", _Short(bench, shortage, command))


def _train(bench: Bench, out: Path) -> list[str]:
    return train_command(bench.shards, out / "run", STEPS)


def _resume(bench: Bench, out: Path) -> list[str]:
    return resume_command(out / "run", STEPS + 4)


def _collect(bench: Bench, out: Path) -> list[str]:
    return WORKLOADS["collect"].start(bench, out)


def _import(bench: Bench, out: Path) -> list[str]:
    words = FORMATS["minari"].command.format(source=bench.source("minari"), out=out / "out")
    return aime(*words.split())


def _report(bench: Bench, out: Path) -> list[str]:
    return aime("report", out / "run", "--data", bench.unseen, "--context", "2", "--horizon", "2")


COMMANDS: dict[str, Callable[[Bench, Path], list[str]]] = {
    "train": _train,
    "resume": _resume,
    "collect": _collect,
    "import": _import,
    "report": _report,
}


class _Short:
    def __init__(self, bench: Bench, shortage: str, command: str) -> None:
        self._bench, self._shortage, self._command = bench, shortage, command

    def __call__(self, place: Path) -> list[str]:
        """Run the command under the shortage, then without it."""
        bench, command = self._bench, COMMANDS[self._command]
        with ExitStack() as stack:
            out = place / "out"
            out.mkdir()
            limits = SHORTAGES[self._shortage](stack, out)
            before: dict[str, str] = {}
            if self._command in ("resume", "report"):
                shutil.copytree(bench.run, out / "run", dirs_exist_ok=True)
                before = outcome(out / "run" / "checkpoint")
            self._close(out)
            ended = Child(command(bench, out), place, limits).wait()
            self._open(out)
            faults = [] if ended.status == 0 else ended.faults((2,))
            faults += unreadable(out) + (leftovers(out) if ended.status == 2 else [])
            if before and ended.status != 0 and not _still(out / "run", before):
                faults.append("the checkpoint of before is not whole")
            if not faults and ended.status == 0 and self._shortage in ("full-disk", "read-only", "file-size"):
                faults.append(f"it ends with 0 where nothing could be written: {last_line(ended.out)}")
        return faults

    def _close(self, out: Path) -> None:
        if self._shortage == "full-disk":
            left = LEFT_FOR_IMPORT if self._command == "import" else LEFT
            (out / FILLER).write_bytes(bytes(max(shutil.disk_usage(out).free - left, 0)))
        if self._shortage == "read-only":
            _write(out, False)

    def _open(self, out: Path) -> None:
        if self._shortage == "read-only":
            _write(out, True)
        (out / FILLER).unlink(missing_ok=True)


def _write(out: Path, allowed: bool) -> None:
    """Allow or forbid to write to a directory and all in it: for root by its mount, for others by its modes."""
    if os.getuid() == 0:
        subprocess.run(["mount", "-o", f"remount,{'rw' if allowed else 'ro'}", str(out)], check=True)
        return
    for path in [out, *out.rglob("*")]:
        path.chmod((0o755 if allowed else 0o555) if path.is_dir() else (0o644 if allowed else 0o444))


def _still(run: Path, before: dict[str, str]) -> bool:
    """Whether the checkpoint of before, or a later whole one, is there."""
    directory = run / "checkpoint" if (run / "checkpoint").exists() else run / "checkpoint.old"
    found = outcome(directory)
    return found == before or (before.keys() <= found.keys() and not unreadable(directory))


def _full_disk(stack: ExitStack, out: Path) -> Limits:
    stack.enter_context(_small_disk(out))
    return PATIENCE


@contextmanager
def _small_disk(out: Path) -> Iterator[None]:
    """A file system in memory."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(out)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(out)], check=True)


def _read_only(stack: ExitStack, out: Path) -> Limits:
    if os.getuid() == 0:  # whom no mode keeps from writing
        stack.enter_context(_small_disk(out))
    return PATIENCE


def _few_files(stack: ExitStack, out: Path) -> Limits:
    return Limits(300.0, PATIENCE.memory, files=24)


def _small_files(stack: ExitStack, out: Path) -> Limits:
    return Limits(300.0, PATIENCE.memory, file_size=2048)


def _little_memory(stack: ExitStack, out: Path) -> Limits:
    return Limits(300.0, PATIENCE.memory, address_space=1300 << 20)


SHORTAGES: dict[str, Callable[[ExitStack, Path], Limits]] = {
    "full-disk": _full_disk,
    "read-only": _read_only,
    "few-files": _few_files,
    "file-size": _small_files,
    "little-memory": _little_memory,
}
