"""A process and all that it starts, watched: wall time, resident memory, and its end."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

HANG_SECONDS = 20.0
MEMORY_BYTES = 2 * 2**30
POLL_SECONDS = 0.03


@dataclass(frozen=True)
class Limits:
    """When a child is killed, and what the kernel lets it take.

    Attributes:
        seconds: of wall time.
        memory: bytes resident in all processes of its session together.
        files: RLIMIT_NOFILE, or None.
        address_space: RLIMIT_AS in bytes, or None.
        file_size: RLIMIT_FSIZE in bytes, or None.
    """

    seconds: float = HANG_SECONDS
    memory: int = MEMORY_BYTES
    files: int | None = None
    address_space: int | None = None
    file_size: int | None = None


USUAL = Limits()


class Watch:
    """A child that leads a session of its own.

    Attributes:
        pid: the child's, which is also the number of the session.
        peak: most bytes resident so far, as polled and as the kernel has counted for the child itself.
        stopped: why it was killed, or None.
        status: its exit status, or minus the signal that ended it; None while it runs.
    """

    def __init__(self, pid: int, limits: Limits) -> None:
        self.pid, self._limits = pid, limits
        self.peak = 0
        self.stopped: str | None = None
        self.status: int | None = None
        self._started = time.monotonic()
        self._ended = 0.0

    @property
    def seconds(self) -> float:
        """Of wall time, until now or until it ended."""
        return (self._ended or time.monotonic()) - self._started

    def poll(self) -> bool:
        """Whether it still runs; kills it beyond its limits."""
        if self.status is not None:
            return False
        self.peak = max(self.peak, _resident(self.pid), _high_water(self.pid))
        if self.stopped is None and self.peak > self._limits.memory:
            self.stopped = f"more than {self._limits.memory >> 20} MB of memory ({self.peak >> 20} MB)"
            self.kill()
        if self.stopped is None and self.seconds > self._limits.seconds * _slowness():
            self.stopped = f"still running after {self.seconds:.0f} s"
            self.kill()
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return True
        self.status, self._ended = os.waitstatus_to_exitcode(status), time.monotonic()
        self.kill()  # what the first process left behind
        return False

    def wait(self) -> int:
        """Until it ends, or is killed for its limits; its status."""
        while self.poll():
            time.sleep(POLL_SECONDS)
        assert self.status is not None
        return self.status

    def kill(self) -> None:
        """SIGKILL to every process of the session."""
        for pid in session(self.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def _slowness() -> float:
    """How many times longer a process takes because others want the cores as well, at most 4."""
    return min(max(os.getloadavg()[0] / (os.cpu_count() or 1), 1.0), 4.0)


def session(leader: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != b"Z":
            found.append(int(name))
    return found


def _resident(leader: int) -> int:
    """Bytes resident in a session, without mapped files; pages that its processes share count for each."""
    pages = 0
    for pid in session(leader):
        try:
            with open(f"/proc/{pid}/statm", "rb") as file:
                words = file.read().split()
        except OSError:
            continue
        pages += int(words[1]) - int(words[2])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _high_water(pid: int) -> int:
    """What the kernel has counted as the most that a process had, so that no peak falls between two polls."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            line = next((line for line in file if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    except OSError:
        return 0
    return int(line.split()[1]) * 1024
