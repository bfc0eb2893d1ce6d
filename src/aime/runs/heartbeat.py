"""Whether the other ranks of a training live: each tells the others so, once a second, from a thread of its own.

A collective waits for the slowest rank, and it may wait long for good reason: while the first rank reads all data,
saves or draws. So no collective has a short timeout. A rank that is killed or frozen tells nothing any longer, whatever
the others wait for, and they end.
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
"""Seconds without a sign of life after which the others end. torchrun takes 30 more to kill what is frozen."""

_BEAT = 1.0
_MISSED = 3.5
"""Seconds of silence by which a rank is known to be gone, where something has failed already."""

EXIT_LOST = 1


class Heartbeat:
    """Tells the other ranks that this one lives, and ends this process when one of them does not.

    Args:
        store: that all ranks reach; only this object uses it.
        number: of this rank.
        size: of the group.
        end: called with a line for the user when a rank is lost; by default it prints and ends the process, whatever
            the main thread waits for.
    """

    def __init__(self, store: Store, number: int, size: int, end: Callable[[str], None] | None = None) -> None:
        self._store, self._number, self._size = store, number, size
        self._end = end or self._say_and_exit
        self._stopping = threading.Event()
        self._beats: dict[int, str] = {}
        now = time.monotonic()
        self._heard = dict.fromkeys(range(size), now)
        self._store_heard = now
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Leave the others without alarm."""
        self._stopping.set()
        self._thread.join()

    def explain_loss(self) -> str | None:
        """After a collective has failed: a line that names the rank that is gone; None if all tell that they live."""
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
            self._store_heard = time.monotonic()
            for rank in range(self._size):
                if rank != self._number and self._store.check([_key(rank)]):
                    self._note(rank, self._store.get(_key(rank)).decode())
        except (distributed.DistError, RuntimeError):
            pass  # the silence counts

    def _note(self, rank: int, beat: str) -> None:
        if beat != self._beats.get(rank) or beat == "left":
            self._beats[rank], self._heard[rank] = beat, time.monotonic()

    def _lost(self, silence: float) -> str | None:
        now = time.monotonic()
        if now - self._store_heard > silence:
            return _line("torchrun, which the processes of this training meet at,")
        for rank, heard in self._heard.items():
            if rank != self._number and now - heard > silence and self._beats.get(rank) != "left":
                words = self._beats.get(rank, "").split()
                place = f" (process {words[2]} on {words[1]})" if len(words) == 3 else ""
                return _line(f"rank {rank} of {self._size}{place}")
        return None

    def _say_and_exit(self, line: str) -> None:
        from torch import distributed

        try:
            first = self._store.add("aime/lost", 1) == 1
        except (distributed.DistError, RuntimeError):
            first = True
        if first:
            show_cursor = "\x1b[?25h" if sys.stdout.isatty() else ""  # a live display had hidden it
            print(f"{show_cursor}aime train: {line}", file=sys.stderr, flush=True)
        else:
            time.sleep(_BEAT)  # torchrun ends all processes as soon as one has ended: not before the first has spoken
        os._exit(EXIT_LOST)


def _line(who: str) -> str:
    return (
        f"{who} has ended or is frozen; expected a sign of life every second: give the same command with --resume to "
        "go on from the last checkpoint"
    )


def _key(rank: int) -> str:
    return f"aime/alive/{rank}"
