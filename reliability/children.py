"""Commands as children of this process, and whether they ended as AIME promises."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reliability.watching import MEMORY_BYTES, USUAL, Limits, Watch


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        status: its exit status, or minus the signal that ended it.
        out: its standard output.
        err: its standard error.
        seconds: of wall time.
        peak: most bytes resident.
        stopped: why the watcher killed it, or None.
        breaches: what it did that no input may make it do.
    """

    status: int
    out: str
    err: str
    seconds: float
    peak: int
    stopped: str | None = None
    breaches: tuple[str, ...] = ()

    def faults(self, statuses: Sequence[int] = (0, 2)) -> list[str]:
        """What breaks the promise of one line, in time, in little memory, and nothing outside."""
        found = list(self.breaches)
        if self.stopped:
            return [*found, self.stopped]
        said = last_line(self.err)
        if "Traceback (most recent call last)" in self.out + self.err:
            found.append(f"traceback: {said or last_line(self.out)}")
        elif self.status not in statuses:
            found.append(f"exit status {self.status}, expected {' or '.join(map(str, statuses))}: {said}")
        elif self.status == 2 and not said.startswith("aime"):
            found.append(f"exit status 2 without a line of aime's own: {said!r}")
        if self.peak > MEMORY_BYTES:
            found.append(f"{self.peak >> 20} MB of memory")
        return found


def last_line(text: str) -> str:
    """The last line that is not empty."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def aime(*arguments: object) -> list[str]:
    """The command line of `aime ARGUMENTS` in this interpreter."""
    return [sys.executable, "-m", "aime", *map(str, arguments)]


def environment(place: Path) -> dict[str, str]:
    """The environment of a child: one thread, no byte code, and every cache below `place`."""
    for name in ("tmp", "cache"):
        (place / name).mkdir(parents=True, exist_ok=True)
    own = {
        "OMP_NUM_THREADS": "1",
        "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl"),
        "AIME_CACHE": str(place / "cache"),
        "MPLCONFIGDIR": str(place / "cache"),
        "TMPDIR": str(place / "tmp"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "100",
    }
    return {**os.environ, **own}


class Child:
    """A command in a session of its own, so that all of its processes can be counted and killed."""

    def __init__(
        self,
        command: Sequence[str],
        place: Path,
        limits: Limits = USUAL,
        env: Mapping[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """Start it.

        Args:
            command: the words of the command line.
            place: a directory for what it prints, and for its caches.
            limits: after which it is killed.
            env: added to the environment.
            prepare: called in the child before the command starts.
        """
        place.mkdir(parents=True, exist_ok=True)
        self._outputs = [place / f"{time.monotonic_ns()}.{name}" for name in ("out", "err")]

        def in_child() -> None:
            restrict(limits)
            if prepare is not None:
                prepare()

        with self._outputs[0].open("wb") as out, self._outputs[1].open("wb") as err:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**environment(place), **(env or {})},
                start_new_session=True,
                preexec_fn=in_child,
            )
        self.watch = Watch(self._process.pid, limits)

    def said(self) -> str:
        """What it has printed so far, to both outputs."""
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in self._outputs)

    def signal(self, number: int) -> None:
        """Send a signal to the first process alone, as a scheduler does; none where it has ended."""
        if self.watch.poll():
            os.kill(self.watch.pid, number)

    def wait(self) -> Ended:
        """Until it ends, or is killed for its limits."""
        status = self._process.returncode = self.watch.wait()
        out, err = (path.read_text(encoding="utf-8", errors="replace") for path in self._outputs)
        for path in self._outputs:
            path.unlink(missing_ok=True)
        return Ended(status, out, err, self.watch.seconds, self.watch.peak, self.watch.stopped)


def run(command: Sequence[str], place: Path, limits: Limits = USUAL, env: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end, or to its limits."""
    return Child(command, place, limits, env).wait()


def restrict(limits: Limits) -> None:
    """Put this process under the kernel's part of the limits, and behind others."""
    kinds = {
        resource.RLIMIT_NOFILE: limits.files,
        resource.RLIMIT_AS: limits.address_space,
        resource.RLIMIT_FSIZE: limits.file_size,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in kinds.items():
        if value is not None:
            resource.setrlimit(kind, (value, value))
    os.nice(5)
