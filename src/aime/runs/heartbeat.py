"""Heartbeats between ranks: a thread of each rank signals every second that its process is alive.

Collectives cannot have a short timeout: they wait while the first rank reads all data, saves or draws. The heartbeat
detects a killed or frozen rank, and the other ranks exit.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

SILENCE = 20.0
"""Seconds without a heartbeat after which the other ranks exit. torchrun takes 30 more to kill a frozen process."""

_BEAT = 1.0
_MISSED = 3.5
"""Seconds without a heartbeat that count as a lost rank after a collective has failed."""

EXIT_LOST = 1


class Heartbeat:
    """Sends this rank's heartbeat and exits the process if another rank's heartbeat stops.

    Args:
        store: shared by all ranks; only this object uses it.
        number: of this rank.
        size: of the group.
        end: called with a line for the user when a rank is lost; by default it prints the line and exits the process,
            even if the main thread is blocked.
    """

    def __init__(self, store: Store, number: int, size: int, end: Callable[[str], None] | None = None) -> None:
        self._store, self._number, self._size = store, number, size
        self._end = end or self._print_and_exit
        self._stopping = threading.Event()
        self._beats: dict[int, str] = {}
        now = time.monotonic()
        self._last_beat = dict.fromkeys(range(size), now)
        self._last_store_access = now
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Sign off, so that the other ranks do not report a loss."""
        self._stopping.set()
        self._thread.join()

    def explain_loss(self) -> str | None:
        """After a failed collective: a line that names the lost rank; None if all ranks are alive."""
        until = time.monotonic() + _MISSED + 2 * _BEAT
        while time.monotonic() < until:
            lost = self._lost(_MISSED)
            if lost is not None:
                return lost
            time.sleep(_BEAT / 4)
        return None

    def _run(self) -> None:
        beat = 0
        self._store.set_timeout(timedelta(seconds=5))
        while not self._stopping.wait(_BEAT):
            beat += 1
            self._exchange(f"{beat} {socket.gethostname()} {os.getpid()}")
            lost = self._lost(SILENCE)
            if lost is not None:
                self._end(lost)
                return
        self._exchange("left")

    def _exchange(self, own: str) -> None:
        from torch import distributed

        try:
            self._store.set(_key(self._number), own)
            self._last_store_access = time.monotonic()
            for rank in range(self._size):
                if rank != self._number and self._store.check([_key(rank)]):
                    self._record(rank, self._store.get(_key(rank)).decode())
        except (distributed.DistError, RuntimeError):
            pass  # counts as a missed heartbeat

    def _record(self, rank: int, beat: str) -> None:
        if beat != self._beats.get(rank) or beat == "left":
            self._beats[rank], self._last_beat[rank] = beat, time.monotonic()

    def _lost(self, silence: float) -> str | None:
        now = time.monotonic()
        if now - self._last_store_access > silence:
            return _line("torchrun, which connects the processes of this training,")
        for rank, last_beat in self._last_beat.items():
            if rank != self._number and now - last_beat > silence and self._beats.get(rank) != "left":
                words = self._beats.get(rank, "").split()
                place = f" (process {words[2]} on {words[1]})" if len(words) == 3 else ""
                return _line(f"rank {rank} of {self._size}{place}")
        return None

    def _print_and_exit(self, line: str) -> None:
        from torch import distributed

        try:
            first = self._store.add("aime/lost", 1) == 1
        except (distributed.DistError, RuntimeError):
            first = True
        if first:
            show_cursor = "\x1b[?25h" if sys.stdout.isatty() else ""  # a live display hides it
            print(f"{show_cursor}aime train: {line}", file=sys.stderr, flush=True)
        else:
            time.sleep(_BEAT)  # torchrun kills all processes when one exits: let the first print its line
        os._exit(EXIT_LOST)


def _line(who: str) -> str:
    return (
        f"{who} has ended or is frozen; expected a heartbeat every second: give the same command with --resume to "
        "resume from the last checkpoint"
    )


def _key(rank: int) -> str:
    return f"aime/alive/{rank}"
