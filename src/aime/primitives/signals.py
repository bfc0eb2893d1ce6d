"""Handling of SIGINT, SIGTERM and SIGHUP: the first requests a graceful end, further ones end at once."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_ONE_EVENT = 0.5
"""Signals within this many seconds count as one: terminal, shell and torchrun each send one when a window closes."""

_GRACE = 2.0
"""Seconds after the first signal within which a second signal is ignored; a third one ends the program."""


class Interrupted(KeyboardInterrupt):
    """Raised when a signal ends the program."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def exit_status(error: KeyboardInterrupt) -> int:
    """The exit status of an interrupted program: 128 plus the signal's number, SIGINT's if it is unknown."""
    return 128 + (error.number if isinstance(error, Interrupted) else signal.SIGINT)


class Interruption:
    """Signal handler; true once a signal has arrived.

    The first signal raises `Interrupted`, unless `held` is set by code that checks this object and ends by itself.
    Signals within the next half second count as the same. A second signal after two seconds, and any third one, raise
    `Interrupted` even if `held` is set.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """The number of the first signal."""
        self.held = False
        self.over = False
        """Whether all work is done; further signals are then ignored."""
        self._first = 0.0
        self._later = 0

    def __bool__(self) -> bool:
        return self.number is not None

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """Handle a signal.

        Raises:
            Interrupted: if the program must end now.
        """
        now = time.monotonic()
        if self.over:
            return
        if self.number is None:
            self.number, self._first = number, now
            if self.held:
                return
            raise Interrupted(number)
        if now - self._first < _ONE_EVENT:
            return
        self._later += 1
        if self._later > 1 or now - self._first > _GRACE:
            raise Interrupted(number)


_present: Interruption | None = None


@contextmanager
def handled(until_exit: bool = False) -> Iterator[Interruption]:
    """Handle the signals inside the context; a nested context shares the outer interruption.

    An `Interrupted` raised in a destructor, where it cannot be caught, is not printed; the program ends at the next
    check of the interruption. An ignored SIGHUP, as under nohup, stays ignored. Outside the main thread, which alone
    may handle signals, nothing changes.

    Args:
        until_exit: whether the program ends with the context. After a signal, further ones are then ignored during
            Python's shutdown, where they would change the exit status.
    """
    global _present
    if _present is not None or threading.current_thread() is not threading.main_thread():
        yield Interruption() if _present is None else _present
        return
    _present = interruption = Interruption()
    before = {
        number: signal.signal(number, interruption.receive)
        for number in SIGNALS
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    }
    hook, sys.unraisablehook = sys.unraisablehook, _silent_about_signals(sys.unraisablehook)
    try:
        yield interruption
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if until_exit and interruption else handler)
        _present = None


def _silent_about_signals(hook: Callable[[Any], object]) -> Callable[[Any], None]:
    def report(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, Interrupted):
            hook(unraisable)

    return report


@contextmanager
def blocked_in_children() -> Iterator[None]:
    """Block the signals in processes that start inside the context, since their parent handles them.

    Signals that arrive here inside the context are handled at its end.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
