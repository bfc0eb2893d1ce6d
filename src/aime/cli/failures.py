"""Exit statuses, and one-line messages for exceptions."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path

from aime.errors import AimeError, one_line, type_and_text

EXIT_USER_ERROR = 2
EXIT_BROKEN_PIPE = 141
"""The status that a shell reports for SIGPIPE."""

EXIT_DEFECT = 1

_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "Unable to allocate",
    "unable to allocate",
    "could not create a primitive",  # oneDNN without memory for a convolution
)
_FULL = (errno.ENOSPC, errno.EDQUOT)


def explain(error: BaseException) -> str | None:
    """One line for the user, or None if the exception is a bug.

    A full disk, lack of memory and too many open files are also recognised by their text, because HDF5, safetensors and
    torch wrap them in other exceptions.
    """
    if isinstance(error, AimeError):
        return one_line(error)
    number, text = getattr(error, "errno", None), str(error)
    place = getattr(error, "filename", None)
    where = f"{place}: " if place else ""
    if number in _FULL or "No space left on device" in text:
        return f"{where}the disk is full; existing files are unchanged: free some space and run the command again"
    if isinstance(error, MemoryError) or number == errno.ENOMEM or any(each in text for each in _MEMORY):
        detail = f" ({one_line(text)[:120]})" if text else ""
        return f"{where}out of memory{detail}; use a smaller --batch or model, or close other programs"
    if number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in text:
        return f"{where}too many open files; raise the limit (`ulimit -n 4096`) and run the command again"
    if number == errno.EFBIG:
        return f"{where}the file exceeds the size limit of this user; raise it (`ulimit -f unlimited`)"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        remedy = "check the path and its permissions"
        return f"{error.filename}: {error.strerror.lower()}; expected an accessible path: {remedy}"
    return None


def explain_defect(error: BaseException) -> str:
    """One line for an exception that is a bug."""
    frame = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" at {Path(frame[0].filename).name}:{frame[0].lineno}" if frame else ""
    what = type_and_text(error)[:300]
    return f"internal error ({what}{place}); please report it with the output of the same command with --debug"
