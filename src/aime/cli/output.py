"""Standard output and error that do not fail on characters they cannot encode, or when their reader has closed."""

from __future__ import annotations

import contextlib
import io
import os
import sys


class LastingStream(io.TextIOWrapper):
    """A text stream that discards its output once its reader has closed."""

    def write(self, text: str) -> int:
        """Write, or discard if the reader has closed."""
        try:
            return super().write(text)
        except OSError:
            self._discard_rest()
            return len(text)

    def flush(self) -> None:
        """Flush, or discard if the reader has closed."""
        try:
            super().flush()
        except OSError:
            self._discard_rest()

    def _discard_rest(self) -> None:
        discard(self.fileno())
        with contextlib.suppress(OSError):
            super().flush()  # the buffered text


def discard(descriptor: int) -> None:
    """Redirect a file descriptor to the null device."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, descriptor)
    os.close(null)


def make_safe(lasting: bool) -> None:
    """Make standard output and error replace characters that they cannot encode, and reopen closed ones as null device.

    Args:
        lasting: whether standard output is discarded once its reader has closed, instead of ending the command.
    """
    for descriptor in range(3):  # otherwise a file opened later gets the descriptor, and output is written to it
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
    sys.stdout = _safe(sys.stdout, 1, lasting)
    sys.stderr = _safe(sys.stderr, 2, lasting=True)


def _safe(stream: object, descriptor: int, lasting: bool) -> io.TextIOWrapper:
    if not isinstance(stream, io.TextIOWrapper):  # None if the descriptor was closed at the start
        stream = io.TextIOWrapper(io.FileIO(descriptor, "w", closefd=False), encoding="utf-8", write_through=True)
    assert isinstance(stream, io.TextIOWrapper)
    if not lasting:
        stream.reconfigure(errors="replace")
        return stream
    line_buffering, encoding = stream.line_buffering, stream.encoding
    write_through = stream.write_through
    return LastingStream(
        stream.detach(), encoding=encoding, errors="replace", line_buffering=line_buffering, write_through=write_through
    )
