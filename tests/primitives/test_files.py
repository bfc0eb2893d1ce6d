"""Files are written atomically."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aime.errors import AimeError
from aime.primitives.files import read_small, replace_directory, staging, write_atomically


def test_it_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(AimeError, match=r"file: cannot be written: No space left on device; free some space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_way_of_a_directory_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AimeError, match="check the path and its permissions"):
        write_atomically(tmp_path / "file" / "inner", b"x")


WRITING = """
import os, sys, time
from pathlib import Path
from aime.primitives import files
def stop(*arguments):
    print("writing", flush=True)
    time.sleep(60)
files.os.fsync = stop
files.write_atomically(Path(sys.argv[1]), b"half")
"""


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def leftovers() -> list[Path]:
        return [each for each in tmp_path.iterdir() if each != path]

    with subprocess.Popen([sys.executable, "-c", WRITING, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        os.utime(leftovers()[0], (0, 0))
        write_atomically(path, b"one")
        assert len(leftovers()) == 1
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    write_atomically(path, b"two")
    assert leftovers() == []


def test_a_staging_directory_of_a_killed_writer_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".films.7-7.tmp"
    (left / "films").mkdir(parents=True)
    os.utime(left, (0, 0))
    with staging(tmp_path / "films") as place:
        assert not left.exists()
        (place / "films").touch()
        os.utime(place, (0, 0))
        with staging(tmp_path / "films"):
            assert place.exists()
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_small_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 10**12)
    for name, problem in (("fifo", "no regular file"), ("sparse", "larger than 100 bytes"), ("none", "No such file")):
        with pytest.raises(AimeError, match=problem):
            read_small(tmp_path / name, 100)


def test_a_directory_is_replaced_whole(tmp_path: Path) -> None:
    for number in range(3):
        new = tmp_path / "new"
        new.mkdir()
        (new / str(number)).touch()
        replace_directory(new, tmp_path / "place")
        assert [path.name for path in tmp_path.iterdir()] == ["place"]
        assert [path.name for path in (tmp_path / "place").iterdir()] == [str(number)]
