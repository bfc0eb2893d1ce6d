"""SIGINT, SIGTERM and SIGHUP alike: the first ends the work with grace, repeated ones end it at once."""

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
"""Seconds in which several signals are one: a terminal, a shell and torchrun each send one when a window closes."""

_GRACE = 2.0
"""Seconds after the first signal in which only a third one, of its own, ends the work at once."""


class Interrupted(KeyboardInterrupt):
    """A signal asks the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def exit_status(error: KeyboardInterrupt) -> int:
    """What a shell gives for a program that a signal ended: 128 and its number; that of SIGINT where none is known."""
    return 128 + (error.number if isinstance(error, Interrupted) else signal.SIGINT)


class Interruption:
    """Whether a signal has asked the program to end, and what happens then.

    The first signal raises `Interrupted`; while `held` is set it only makes this true, for who has something to finish
    and looks at it now and then. Signals that follow within half a second count as the same. Later ones raise
    `Interrupted`, held or not: the second from two seconds after the first on, a third at any time.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """The first signal's."""
        self.held = False
        self.over = False
        """Whether all work is done: signals that still come change nothing."""
        self._first = 0.0
        self._later = 0

    def __bool__(self) -> bool:
        return self.number is not None

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """The handler of the signals.

        Raises:
            Interrupted: where the program shall end now.
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
    """Handle the signals while the context lasts; within another such context this is that one.

    An `Interrupted` that is raised in a destructor, where nothing can catch it, is not printed: whoever looks at the
    interruption next ends the work.

    A SIGHUP that whoever started the program has it ignore, as nohup does, stays ignored. Outside of the main thread,
    which alone may handle signals, nothing changes.

    Args:
        until_exit: whether the program ends with the context. If a signal has come, later ones are ignored from then
            on: the end of Python takes a second, in which they would change the exit status.
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
    """Let processes that are started meanwhile never see the signals: their parent handles them for all.

    What arrives here meanwhile is handled at the end.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
