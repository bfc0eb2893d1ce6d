"""Standard output and error that end nothing: whatever they can encode, and whether or not anybody still reads."""

from __future__ import annotations

import contextlib
import io
import os
import sys


class LastingStream(io.TextIOWrapper):
    """A text stream whose reader may go: what is written after that goes nowhere."""

    def write(self, text: str) -> int:
        """Write, or note that there is nobody to write to."""
        try:
            return super().write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        """Flush, or note that there is nobody to write to."""
        try:
            super().flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        discard(self.fileno())
        with contextlib.suppress(OSError):
            super().flush()  # what had been buffered


def discard(descriptor: int) -> None:
    """Send all that is written to a descriptor nowhere from now on."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, descriptor)
    os.close(null)


def make_safe(lasting: bool) -> None:
    """Let standard output and error replace what they cannot encode, and bring closed ones back as the null device.

    Args:
        lasting: whether output whose reader has gone is dropped, for work whose results are files; errors always are.
    """
    for descriptor in range(3):  # a file opened later would take the place of a closed one, and be written into
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
    if not isinstance(stream, io.TextIOWrapper):  # None, where the descriptor was closed from the start
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
