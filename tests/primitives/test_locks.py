"""A directory has one writer at a time, across processes."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from aime.errors import AimeError
from aime.primitives.locks import only_writer

HOLDING = """
import sys, time
from pathlib import Path
from aime.primitives.locks import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_by_the_name_of_the_first_until_that_is_killed(tmp_path: Path) -> None:
    place = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLDING, str(place)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(AimeError, match=f"process {holder.pid} on {socket.gethostname()} is writing to it") as error,
            only_writer(place),
        ):
            raise AssertionError("two writers")
        assert "\n" not in str(error.value)
        assert str(error.value).startswith(f"{place}: ")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with only_writer(place):
        assert (place / ".lock").read_text() == f"{socket.gethostname()} {os.getpid()}\n"
    assert list(place.iterdir()) == []


def test_an_error_leaves_no_directory_that_was_not_there(tmp_path: Path) -> None:
    for place, stays in ((tmp_path / "new", False), (tmp_path, True)):
        with pytest.raises(ZeroDivisionError), only_writer(place):
            raise ZeroDivisionError
        assert place.exists() == stays


def test_a_lock_that_its_holder_has_removed_meanwhile_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file was opened, then removed by its last holder: to lock it would keep nobody out."""
    flock, calls = fcntl.flock, 0

    def after_removal(descriptor: int, how: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            (tmp_path / ".lock").unlink()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", after_removal)
    with only_writer(tmp_path):
        assert (tmp_path / ".lock").exists()
        with pytest.raises(AimeError, match="is writing to it"), only_writer(tmp_path):
            raise AssertionError("two writers")


def test_a_file_system_without_locks_is_said_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with only_writer(tmp_path):
        pass
    assert "this file system has no locks" in capsys.readouterr().err


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(AimeError, match="cannot be written"), only_writer(tmp_path):
        pass
    assert (tmp_path / "victim").read_text() == "precious"
