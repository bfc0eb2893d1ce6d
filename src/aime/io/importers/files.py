"""Opening source files, and messages about files that cannot be opened."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from aime.errors import one_line
from aime.io.importers.interface import BadEpisode

_LITTER = ("thumbs.db", "desktop.ini")
_SHORTAGES = {
    errno.EMFILE: "there are too many open files: raise the limit (ulimit -n) or use fewer --workers",
    errno.ENFILE: "there are too many open files: close other programs",
    errno.EAGAIN: "another program uses it: wait until it is done",
    errno.ETXTBSY: "another program uses it: wait until it is done",
    errno.EBUSY: "another program uses it: wait until it is done",
    errno.EACCES: "this user may not read it: change its permissions",
    errno.EPERM: "this user may not read it: change its permissions",
    errno.ENOENT: "it does not exist: check links to it",
    errno.ENOMEM: "there is too little memory: use fewer --workers",
}


def is_litter(path: Path) -> bool:
    """Whether a file is hidden or from a desktop environment (`.DS_Store`, `._film.mp4`, `Thumbs.db`)."""
    return path.name.startswith(".") or path.name.lower() in _LITTER


def check_regular(path: Path) -> None:
    """Refuse pipes, devices and sockets. Links are followed.

    Raises:
        BadEpisode: if it is not a regular file, or cannot be accessed.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise BadEpisode(f"{path}: {unopened(error)}") from error
    if not stat.S_ISREG(mode):
        kind = next((name for name, test in _KINDS.items() if test(mode)), "no regular file")
        raise BadEpisode(f"{path}: is {kind}, expected a regular file; remove it")


_KINDS = {
    "a directory": stat.S_ISDIR,
    "a pipe": stat.S_ISFIFO,
    "a device": stat.S_ISCHR,
    "a block device": stat.S_ISBLK,
    "a socket": stat.S_ISSOCK,
}


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading.

    Raises:
        BadEpisode: if it is not a regular file, or cannot be opened.
    """
    check_regular(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadEpisode(f"{path}: {unopened(error)}") from error
    with file:
        yield file


def unopened(error: OSError) -> str:
    """Reason and remedy, to follow a file's name and a colon."""
    text = _SHORTAGES.get(error.errno or 0)
    if text is not None:
        return f"cannot be opened, because {text}"
    return f"cannot be opened ({one_line(error)}), expected a readable file; check its permissions"
