"""One writer a directory: an advisory lock, which the operating system releases however its process ends."""

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
"""The file in a locked directory: "HOST PID" of the process that writes there. It is removed with the lock; a kill
leaves it behind, unlocked."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_LONGEST = 4096


@contextmanager
def only_writer(directory: Path) -> Iterator[None]:
    """Keep every other `only_writer` out of a directory while the context lasts; readers need no lock.

    The directory is made if it is missing, and removed again if an error leaves nothing in it. Where the file system
    has no locks, that is said on stderr and the work goes on without one.

    Raises:
        AimeError: if another process holds the lock, naming its host and process; or if the directory cannot be
            written.
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
        # removed while it is still locked: whoever opened it meanwhile sees that it is gone, and opens the next one
        with contextlib.suppress(OSError):
            (directory / LOCK).unlink()
        os.close(descriptor)
        if made and sys.exc_info()[0] is not None:
            with contextlib.suppress(OSError):
                directory.rmdir()


def _locked(directory: Path) -> int:
    """The descriptor of the lock file, locked and signed."""
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
    """Whether the open file still has that name: its last holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> str:
    # a holder that has not signed yet leaves it empty for a moment
    words = os.pread(descriptor, _LONGEST, 0).decode(errors="replace").split()
    return f"process {words[1]} on {words[0]}" if len(words) == 2 else "another process"
