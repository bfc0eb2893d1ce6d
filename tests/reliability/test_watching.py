"""The harness finds what it looks for: a child that hangs, grows, prints a traceback, or opens a socket."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from reliability.children import Ended, run
from reliability.watching import Limits


def python(code: str, place: Path, limits: Limits) -> Ended:
    return run([sys.executable, "-c", code], place, limits)


def test_a_child_that_hangs_is_stopped_with_all_that_it_started(tmp_path: Path) -> None:
    code = "import subprocess, time; subprocess.Popen(['sleep', '600']); time.sleep(600)"
    ended = python(code, tmp_path, Limits(seconds=1))
    assert ended.stopped is not None and ended.faults() == [ended.stopped]


def test_a_child_that_grows_is_stopped(tmp_path: Path) -> None:
    code = "import time; held = [b'x' * (8 << 20) for _ in range(64)]; time.sleep(600)"
    ended = python(code, tmp_path, Limits(seconds=60, memory=200 << 20))
    assert ended.stopped is not None and ended.stopped.startswith("more than 200 MB of memory")


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("1 / 0", "traceback: ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)", "exit status 3, expected 0 or 2: "),
        ("import sys; print('no', file=sys.stderr); sys.exit(2)", "exit status 2 without a line of aime's own: 'no'"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "exit status -11, expected 0 or 2: "),
    ],
)
def test_faults_are_named(tmp_path: Path, code: str, fault: str) -> None:
    assert python(code, tmp_path, Limits(seconds=60)).faults() == [fault]


def test_a_refusal_in_one_line_is_none(tmp_path: Path) -> None:
    code = "import sys; print('aime data: x: is damaged', file=sys.stderr); sys.exit(2)"
    assert python(code, tmp_path, Limits(seconds=60)).faults() == []
