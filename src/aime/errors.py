"""The one error that a user's input can cause."""

from __future__ import annotations


class AimeError(ValueError):
    """Something a user can put right: a file, a field, a flag or a shape that does not fit.

    The message is one line that names what was found, what was expected and the remedy. The command line prints it
    without a traceback and exits with code 2; the library raises it like any other `ValueError`.
    """
