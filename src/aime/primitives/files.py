"""Files that are whole or absent."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from pathlib import Path

from aime.errors import AimeError


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file under a temporary name, flush it to the disk, rename it; on failure leave nothing behind.

    Raises:
        AimeError: if the disk is full, or the file cannot be written for another reason of the operating system.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
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
