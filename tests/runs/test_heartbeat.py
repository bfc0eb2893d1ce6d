"""A killed or frozen rank is reported by the others; a rank that leaves or is busy is not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from torch import distributed

from aime.runs import heartbeat
from aime.runs.heartbeat import Heartbeat

OTHER = """
import sys, time
from torch.distributed import TCPStore
from aime.runs import heartbeat
heartbeat._BEAT = 0.1
other = heartbeat.Heartbeat(TCPStore("localhost", int(sys.argv[1]), is_master=False), 1, 2)
other.start()
time.sleep(0.5)
print("alive", flush=True)
sys.stdin.readline()  # busy: as a rank that reads all data
other.stop()
print("left", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Heartbeat, subprocess.Popen[str], list[str]]]:
    """This process as rank 0, a process as rank 1 that lives, and what is said at the end."""
    monkeypatch.setattr(heartbeat, "_BEAT", 0.1)
    monkeypatch.setattr(heartbeat, "SILENCE", 3.0)
    store: Any = distributed.TCPStore("localhost", 0, is_master=True, timeout=timedelta(seconds=20))  # type: ignore[attr-defined]
    command = [sys.executable, "-c", OTHER, str(store.port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "alive\n"
        said: list[str] = []
        own = Heartbeat(store.clone(), 0, 2, said.append)
        own.start()
        yield own, other, said
        other.kill()
        own.stop()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_that_is_gone_is_named(
    watched: tuple[Heartbeat, subprocess.Popen[str], list[str]], number: signal.Signals
) -> None:
    own, other, said = watched
    os.kill(other.pid, number)
    own._thread.join(60)
    assert len(said) == 1
    assert said[0].startswith(f"rank 1 of 2 (process {other.pid} on {socket.gethostname()}) has ended or is frozen")
    assert "--resume" in said[0] and "\n" not in said[0]


def test_a_rank_that_waits_and_then_leaves_raises_no_alarm(
    watched: tuple[Heartbeat, subprocess.Popen[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other, said = watched
    monkeypatch.setattr(heartbeat, "_MISSED", 1.0)
    assert own.explain_loss() is None
    assert other.stdin is not None and other.stdout is not None
    other.stdin.write("\n")
    other.stdin.flush()
    assert other.stdout.readline() == "left\n"
    monkeypatch.setattr(heartbeat, "SILENCE", 0.5)
    own._thread.join(1.5)
    assert own._thread.is_alive() and said == []


def test_a_store_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def set_timeout(self, timeout: timedelta) -> None:
            pass

        def set(self, key: str, value: str) -> None:
            raise RuntimeError("Connection reset by peer")

    monkeypatch.setattr(heartbeat, "_BEAT", 0.05)
    monkeypatch.setattr(heartbeat, "SILENCE", 0.2)
    said: list[str] = []
    done = threading.Event()

    def end(line: str) -> None:
        said.append(line)
        done.set()

    Heartbeat(Gone(), 0, 2, end).start()  # type: ignore[arg-type]
    assert done.wait(20)
    assert said[0].startswith("torchrun, which connects the processes of this training, has ended")
