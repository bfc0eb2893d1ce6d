"""Exit statuses, which exceptions a user can put right, and the one line that says how."""

from __future__ import annotations

import errno

from aime.errors import AimeError

EXIT_USER_ERROR = 2
EXIT_BROKEN_PIPE = 141
"""What a shell gives for a program whose reader has gone."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


def explain(error: Exception) -> str | None:
    """One line for the user, or None where the exception is a defect of the program.

    A full disk is recognised by its text too: HDF5 and safetensors report it inside exceptions of their own.
    """
    if isinstance(error, AimeError):
        return _one_line(str(error))
    if getattr(error, "errno", None) in _FULL or "No space left on device" in str(error):
        place = getattr(error, "filename", None)
        where = f"{place}: " if place else ""
        return f"{where}the disk is full; what was there before is untouched: free some space and run the command again"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}; expected a path that can be used: check it and its rights"
    return None


def _one_line(text: str) -> str:
    return " ".join(text.split())
