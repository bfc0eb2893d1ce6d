"""Exit statuses, which exceptions a user can put right, and the one line that says how."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path

from aime.errors import AimeError, one_line, type_and_text

EXIT_USER_ERROR = 2
EXIT_BROKEN_PIPE = 141
"""What a shell gives for a program whose reader has gone."""

EXIT_DEFECT = 1

_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "Unable to allocate",
    "unable to allocate",
    "could not create a primitive",  # oneDNN's words where it gets no memory for a convolution
)
_FULL = (errno.ENOSPC, errno.EDQUOT)


def explain(error: BaseException) -> str | None:
    """One line for the user, or None where the exception is a defect of the program.

    A full disk, short memory and too many open files are recognised by their text too: HDF5, safetensors and torch
    report them inside exceptions of their own.
    """
    if isinstance(error, AimeError):
        return one_line(error)
    number, text = getattr(error, "errno", None), str(error)
    place = getattr(error, "filename", None)
    where = f"{place}: " if place else ""
    if number in _FULL or "No space left on device" in text:
        return f"{where}the disk is full; what was there before is untouched: free some space and run the command again"
    if isinstance(error, MemoryError) or number == errno.ENOMEM or any(each in text for each in _MEMORY):
        detail = f" ({one_line(text)[:120]})" if text else ""
        return f"{where}memory is short{detail}; take a smaller --batch or model, or end other programs"
    if number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in text:
        return f"{where}too many files are open; raise the limit (`ulimit -n 4096`) and run the command again"
    if number == errno.EFBIG:
        return f"{where}a file is larger than this user may write; raise the limit (`ulimit -f unlimited`)"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}; expected a path that can be used: check it and its rights"
    return None


def explain_defect(error: BaseException) -> str:
    """One line for an exception that is a defect of the program."""
    frame = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" at {Path(frame[0].filename).name}:{frame[0].lineno}" if frame else ""
    what = type_and_text(error)[:300]
    return f"a fault of the program ({what}{place}); report it with what the same command and --debug shows"
