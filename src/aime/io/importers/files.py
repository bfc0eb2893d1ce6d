"""Files of other people: which are looked at, and what is said of those that cannot be opened."""

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
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n) or use fewer --workers",
    errno.ENFILE: "too many files are open: close other programs",
    errno.EAGAIN: "another program uses it: wait until it is done",
    errno.ETXTBSY: "another program uses it: wait until it is done",
    errno.EBUSY: "another program uses it: wait until it is done",
    errno.EACCES: "this user may not read it: change its rights",
    errno.EPERM: "this user may not read it: change its rights",
    errno.ENOENT: "it is not there: a link may point nowhere",
    errno.ENOMEM: "memory is short: use fewer --workers",
}


def is_litter(path: Path) -> bool:
    """Whether a desktop left the file there (`.DS_Store`, `._film.mp4`, `Thumbs.db`), or it is hidden."""
    return path.name.startswith(".") or path.name.lower() in _LITTER


def check_regular(path: Path) -> None:
    """Refuse what blocks or never ends when it is read: pipes, devices, sockets. Links are followed.

    Raises:
        BadEpisode: if it is no regular file, or cannot be looked at.
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
    """A regular file, to be read.

    Raises:
        BadEpisode: if it is none, or cannot be opened; with the reason, which may lie outside of the file.
    """
    check_regular(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadEpisode(f"{path}: {unopened(error)}") from error
    with file:
        yield file


def unopened(error: OSError) -> str:
    """Why a file could not be opened, and what to do, after the file's name and a colon."""
    text = _SHORTAGES.get(error.errno or 0)
    if text is not None:
        return f"cannot be opened, because {text}"
    return f"cannot be opened ({one_line(error)}), expected a file that can be read; check it and its rights"
