"""Atomic writing of files and directories, and bounded reading."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aime.errors import AimeError

_SETTLED_SECONDS = 2.0
"""The writer of a temporary file younger than this may not have locked it yet."""


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file under a temporary name, flush it to disk and rename it.

    On failure nothing is left behind. Temporary files of killed writers of the same file are removed.

    Raises:
        AimeError: if the disk is full, or the operating system refuses for another reason.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        with open(temporary, "wb") as file:
            _mark_alive(file.fileno())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
        sync_directory(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # missing after the rename, or if it could not be created
            temporary.unlink()


@contextmanager
def staging(path: Path) -> Iterator[Path]:
    """A temporary directory next to a path, to prepare the path's new content; removed at the end.

    Temporary directories of killed writers of the same path are removed.

    Raises:
        AimeError: if the directory cannot be created.
    """
    place = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        place.mkdir()
        descriptor = os.open(place, os.O_RDONLY)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        _mark_alive(descriptor)
        yield place
    finally:
        os.close(descriptor)
        shutil.rmtree(place, ignore_errors=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


def _mark_alive(descriptor: int) -> None:
    """Lock a temporary file or directory, to show other processes that its writer is alive."""
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files and directories of a path whose writers have ended, which releases their locks."""
    prefix, suffix = f".{path.name}.", ".tmp"
    with os.scandir(path.parent) as entries:
        found = [entry.name for entry in entries if entry.name.startswith(prefix) and entry.name.endswith(suffix)]
    for name in found:
        leftover = path.with_name(name)
        with contextlib.suppress(OSError):
            descriptor = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if time.time() - os.fstat(descriptor).st_mtime > _SETTLED_SECONDS:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            finally:
                os.close(descriptor)


def replace_directory(new: Path, place: Path) -> None:
    """Replace directory `place` by `new`, which is complete on disk and on the same file system.

    Linux exchanges the two atomically. Elsewhere the old one is renamed to PLACE.old first and removed afterwards.

    Raises:
        OSError: if a directory cannot be renamed.
    """
    old = place.with_name(f"{place.name}.old")
    if not place.exists():
        os.replace(new, place)
    elif not _exchange(new, place):
        shutil.rmtree(old, ignore_errors=True)
        os.replace(place, old)
        os.replace(new, place)
    sync_directory(place.parent)
    for replaced in (old, new):
        shutil.rmtree(replaced, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names atomically; False if the system or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    at_fdcwd, rename_exchange = -100, 2
    return renameat2(at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other), rename_exchange) == 0


def read_small(path: Path, most_bytes: int) -> bytes:
    """The content of a file of at most `most_bytes`.

    Raises:
        AimeError: if it is missing, no regular file, larger, or cannot be read.
    """
    try:
        # O_NONBLOCK: opening a FIFO would block forever
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise AimeError(f"{path}: is no regular file, expected one; check the path")
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise AimeError(f"{path}: cannot be read: {error.strerror}; restore it or check the path") from error
    if len(content) > most_bytes:
        raise AimeError(f"{path}: is larger than {most_bytes} bytes, expected fewer; restore it from a copy")
    return content


def sync_directory(directory: Path) -> None:
    """Flush a directory, so that renames and removals in it survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError) -> AimeError:
    """The error for a path that the operating system refused to write, with a remedy."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "free some space" if full else "check the path and its permissions"
    return AimeError(f"{path}: cannot be written: {error.strerror or error}; {remedy} and run again")
