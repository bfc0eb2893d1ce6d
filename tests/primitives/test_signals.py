"""The first signal ends gracefully, immediate repetitions count as the same, and later ones end at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from aime.primitives import signals
from aime.primitives.signals import Interrupted, Interruption, exit_status, handled


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(signals, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("seconds", "ends"),
    [
        ([0], []),
        ([0, 0.05], []),
        ([0, 0.05, 0.1, 0.2], []),  # a window that closes: the kernel, the shell, torchrun
        ([0, 1], []),
        ([0, 1, 1.1], [1.1]),
        ([0, 0.05, 1, 1.5], [1.5]),
        ([0, 2.5], [2.5]),
        ([0, 0.05, 2.5], [2.5]),
        ([0, 2.5, 2.6], [2.5, 2.6]),
    ],
)
def test_when_signals_end_what_is_held(clock: Clock, seconds: list[float], ends: list[float]) -> None:
    interruption = Interruption()
    interruption.held = True
    ended = []
    for second in seconds:
        clock.now = 100 + second
        try:
            interruption.receive(signal.SIGTERM)
        except Interrupted:
            ended.append(second)
    assert interruption
    assert ended == ends


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_each_signal_raises_where_nothing_is_held_and_gives_its_status(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught, handled() as outer:
        with handled() as inner:
            assert inner is outer
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert exit_status(caught.value) == 128 + number
    assert signal.getsignal(number) is before


def test_the_status_of_an_interrupt_of_python_s_own() -> None:
    assert exit_status(KeyboardInterrupt()) == 130


def test_a_signal_in_a_destructor_prints_nothing_and_counts(capfd: pytest.CaptureFixture[str]) -> None:
    class Deleted:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    hook = sys.unraisablehook
    with handled() as interruption:
        Deleted()
        assert interruption.number == signal.SIGTERM
    assert sys.unraisablehook is hook
    assert capfd.readouterr().err == ""


ENDING = """
import atexit, os, signal, sys
from aime.cli import main
def end():
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        os.kill(os.getpid(), number)
def verb(arguments):
    os.kill(os.getpid(), signal.SIGTERM)
atexit.register(end)
main.main = verb
main.entry()
"""


def test_signals_while_python_ends_do_not_change_the_status() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "")


def test_nohup_is_heeded() -> None:
    code = "import os, signal\nfrom aime.primitives.signals import handled\n"
    code += "with handled(): os.kill(os.getpid(), signal.SIGHUP)\nprint('on')"
    done = subprocess.run(["nohup", sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "on\n"


def test_processes_that_inherit_the_block_are_reached_by_no_signal_and_none_is_lost() -> None:
    code = "import os, signal\nfor each in (1, 2, 15): os.kill(os.getpid(), each)\nprint('on')"
    with pytest.raises(Interrupted), handled():
        with signals.blocked_in_children():
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
            os.kill(os.getpid(), signal.SIGTERM)
            assert done.stdout == "on\n"
        time.sleep(5)
