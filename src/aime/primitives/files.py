"""Files that are whole or absent."""

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
"""A temporary file younger than this may be one whose writer has not locked it yet."""


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file under a temporary name, flush it to the disk, rename it; on failure leave nothing behind.

    What killed writers of the same file left behind is removed.

    Raises:
        AimeError: if the disk is full, or the file cannot be written for another reason of the operating system.
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
        with contextlib.suppress(OSError):  # there is none after the rename, nor where it could not be made
            temporary.unlink()


@contextmanager
def staging(path: Path) -> Iterator[Path]:
    """A directory of its own next to a path, to prepare in what then takes the path's place; it is removed at the end.

    What killed writers of the same path left behind is removed.

    Raises:
        AimeError: if the directory cannot be made.
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
    """Lock a temporary file or directory, where the file system has locks: others then see that its writer lives."""
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files and directories of a path whose writers are gone: the system has released their locks."""
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
    """Put a directory, complete on the disk, in place of another, which is removed; both on one file system.

    Linux exchanges the two in one step, so that at every moment there is one in the place. Elsewhere the old one is
    renamed first, to PLACE.old, and remains until the new one is there.

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
    """Exchange two names in one step; False where the system or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    at_fdcwd, rename_exchange = -100, 2
    return renameat2(at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other), rename_exchange) == 0


def read_small(path: Path, most_bytes: int) -> bytes:
    """The content of a file that is expected to be small.

    Raises:
        AimeError: if it is missing, no regular file, larger, or cannot be read.
    """
    try:
        # a FIFO would block for good, before anything is known of it
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
    """Make the renames and removals in a directory last through a power cut: names live in the directory."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError) -> AimeError:
    """The error of a path that the operating system refused to write, with the remedy."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "free some space" if full else "check the path and its permissions"
    return AimeError(f"{path}: cannot be written: {error.strerror or error}; {remedy} and run again")
