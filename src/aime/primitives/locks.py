"""An advisory lock on a directory, which the operating system releases when the process ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aime.errors import AimeError
from aime.primitives.files import unwritable

LOCK = ".lock"
"""The lock file in a directory, with "HOST PID" of the writer. It is removed with the lock; after a kill it stays,
unlocked."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_LONGEST = 4096


@contextmanager
def only_writer(directory: Path) -> Iterator[None]:
    """Lock a directory against other `only_writer` contexts; readers need no lock.

    A missing directory is created, and removed again if an error leaves it empty. On a file system without locks, a
    warning goes to stderr.

    Raises:
        AimeError: if another process holds the lock (names host and process), or the directory cannot be written.
    """
    made = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(directory)
    except OSError as error:
        raise unwritable(directory, error) from error
    try:
        yield
    finally:
        # removed while still locked: a process that has opened it detects the removal and opens a new file
        with contextlib.suppress(OSError):
            (directory / LOCK).unlink()
        os.close(descriptor)
        if made and sys.exc_info()[0] is not None:
            with contextlib.suppress(OSError):
                directory.rmdir()


def _locked(directory: Path) -> int:
    """The descriptor of the lock file, locked, with host and process written to it."""
    path = directory / LOCK
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise AimeError(
                f"{directory}: {holder} is writing to it; expected no other writer: wait until that ends, or stop it"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            print(f"{directory}: this file system has no locks: see that no other process writes here", file=sys.stderr)
            return descriptor
        if _is_there(descriptor, path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{socket.gethostname()} {os.getpid()}\n".encode(), 0)
            return descriptor
        os.close(descriptor)


def _is_there(descriptor: int, path: Path) -> bool:
    """Whether the path still refers to the open file: the last holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> str:
    # empty for a moment until the holder has written its name
    words = os.pread(descriptor, _LONGEST, 0).decode(errors="replace").split()
    return f"process {words[1]} on {words[0]}" if len(words) == 2 else "another process"
