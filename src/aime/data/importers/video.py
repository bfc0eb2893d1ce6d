"""Films, a block of frames at a time, through PyAV."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from aime.data.importers.interface import MAX_FRAME_BYTES, BadEpisode, block_length
from aime.errors import AimeError

SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".gif")


def pyav() -> Any:
    """The module `av`.

    Raises:
        AimeError: if it is not installed.
    """
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise AimeError(
            "PyAV is not installed, expected it for reading and writing films; pip install 'aime[import]'"
        ) from error


def read_film(path: Path, start: float = 0.0, count: int | None = None) -> Iterator[UInt8[np.ndarray, "n h w 3"]]:
    """The frames of a film from a time on, in blocks, in the order in which they are shown.

    Args:
        path: the file.
        start: seconds from the film's beginning; the first frame is the first that is shown no earlier.
        count: so many frames at most; all by default.

    Raises:
        BadEpisode: if the file cannot be opened or decoded, or has no picture.
    """
    av = pyav()
    try:
        # a bare path: PyAV would take "https://…" or "concat:…" for a protocol, and a file must be a file
        with path.open("rb") as file, av.open(file, metadata_errors="ignore") as film:
            yield from _blocks(path, film, start, count)
    except (av.FFmpegError, OSError, IndexError, ValueError) as error:
        if isinstance(error, BadEpisode):
            raise
        raise BadEpisode(
            f"{path}: cannot be decoded ({_words(error)}), expected a whole film; record it again"
        ) from error


def _blocks(path: Path, film: Any, start: float, count: int | None) -> Iterator[UInt8[np.ndarray, "n h w 3"]]:
    if not film.streams.video:
        raise BadEpisode(f"{path}: has no picture, expected a film; leave it out")
    stream = film.streams.video[0]
    if stream.width * stream.height * 3 > MAX_FRAME_BYTES:
        raise BadEpisode(f"{path}: has frames of {stream.height}x{stream.width}, expected 64 MB at most; reduce them")
    stream.thread_type = "NONE"  # each process has a core of its own already
    if start > 0:
        film.seek(max(int(start / stream.time_base), 0), stream=stream, backward=True)
    # half a frame of slack, because times are rounded to the film's clock
    slack = 0.5 / float(stream.average_rate or 30)
    block: list[np.ndarray] = []
    taken, most = 0, block_length(stream.height, stream.width)
    for frame in film.decode(stream):
        if start > 0 and frame.time is not None and frame.time < start - slack:
            continue
        if count is not None and taken == count:
            break
        block.append(frame.to_ndarray(format="rgb24"))
        taken += 1
        if len(block) == most:
            yield np.stack(block)
            block = []
    if block:
        yield np.stack(block)


def film_weight(path: Path) -> int:
    """Roughly the bytes of a film's frames once decoded, from its header.

    Raises:
        BadEpisode: if there is none.
    """
    av = pyav()
    try:
        with path.open("rb") as file, av.open(file, metadata_errors="ignore") as film:
            stream = film.streams.video[0]
            seconds = float(film.duration or 0) / 1e6
            frames = stream.frames or int(seconds * float(stream.average_rate or 30))
            return max(int(frames), 1) * stream.width * stream.height * 3
    except (av.FFmpegError, OSError, IndexError, ValueError) as error:
        raise BadEpisode(f"{path}: cannot be opened ({_words(error)}), expected a film; record it again") from error


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
