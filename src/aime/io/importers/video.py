"""Decoding of videos in blocks of frames, as a player shows them, with PyAV."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8

from aime.errors import AimeError, one_line
from aime.io.importers.display import Shown
from aime.io.importers.files import opened
from aime.io.importers.film_damage import (
    ERROR_LEVEL,
    MAX_PIXELS,
    ONE_FRAME_A_PACKET,
    STRICT,
    Damaged,
    PacketChecks,
)
from aime.io.importers.interface import BadEpisode, block_length

FORMATS = {".mp4": "mov", ".mov": "mov", ".mkv": "matroska", ".webm": "matroska", ".avi": "avi", ".gif": "gif"}
"""Container by suffix. FFmpeg would guess it from the content, and some formats are network protocols."""

SUFFIXES = tuple(FORMATS)


class FilmBlock(NamedTuple):
    """Consecutive frames of a video."""

    frames: UInt8[np.ndarray, "n h w 3"]
    """0 to 255, upright, with square pixels."""
    times: Float64[np.ndarray, " n"]
    """Presentation times in seconds."""


class FilmFacts(NamedTuple):
    """Data from a video's header."""

    weight: int
    """Approximate bytes of the decoded frames."""
    rate: float
    """Mean frames per second; 0 if unknown."""


def pyav() -> Any:
    """The module `av`.

    Raises:
        AimeError: if it is not installed.
    """
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise AimeError(
            "PyAV is not installed, expected it for reading and writing videos; pip install 'aime[import]'"
        ) from error


def read_film(path: Path, start: float = 0.0) -> Iterator[FilmBlock]:
    """The frames of a video in blocks, in presentation order.

    Args:
        path: the file.
        start: time in seconds of the first required frame; earlier frames may be returned as well.

    Raises:
        BadEpisode: if the file cannot be opened or decoded, is damaged, or has no video stream.
    """
    with _opened(path) as (film, stream):
        yield from _blocks(path, film, stream, start)


def film_facts(path: Path) -> FilmFacts:
    """Data from a video's header.

    Raises:
        BadEpisode: if there is no header.
    """
    with _opened(path) as (film, stream):
        seconds = float(film.duration or 0) / 1e6
        rate = float(stream.average_rate or 0)
        frames = stream.frames or int(seconds * (rate or 30))
        return FilmFacts(max(int(frames), 1) * max(stream.width * stream.height, 1) * 3, rate)


def film_times(path: Path) -> Float64[np.ndarray, " n"]:
    """Presentation times of all frames in seconds, increasing; NaN where unknown.

    Raises:
        BadEpisode: if the file cannot be opened, or read to its end.
    """
    with _opened(path) as (film, stream):
        if stream.codec_context.name in ONE_FRAME_A_PACKET and not _numbered(film, stream):
            packets = (packet for packet in film.demux(stream) if packet.size and not packet.is_discard)
            ticks = [np.nan if packet.pts is None else packet.pts * float(stream.time_base) for packet in packets]
            return np.sort(np.array(ticks, np.float64))
        stream.thread_type = "NONE"
        stream.codec_context.options = dict(STRICT)
        return np.array([time for _, time in _timed(film, stream, 0.0)], np.float64)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    av = pyav()
    with opened(path) as file:
        try:
            with av.open(
                file,
                format=FORMATS[path.suffix.lower()],
                metadata_errors="ignore",
                # references to other files and URLs are not opened
                options={"protocol_whitelist": "none", "max_pixels": str(MAX_PIXELS)},
                io_open=_open_nothing,
            ) as film:
                yield film, _pictures(path, film)
        except (av.FFmpegError, OSError, LookupError, ValueError, AttributeError, TypeError) as error:
            if isinstance(error, AimeError):
                raise
            raise BadEpisode(
                f"{path}: cannot be decoded ({_reason(error)}), expected a whole {path.suffix} file; record it again"
            ) from error


def _open_nothing(url: str, flags: int, options: dict[str, str]) -> None:
    raise PermissionError(f"it refers to {url!r}")


def _reason(error: Exception) -> str:
    # PyAV adds FFmpeg's error number before the text, and a function or file name after it
    return re.sub(r"^\[Errno \d+\] |: '.*$", "", one_line(error))


def _pictures(path: Path, film: Any) -> Any:
    """The video stream, without cover images."""
    streams = [stream for stream in film.streams.video if not _is_cover(stream)]
    if not streams:
        raise BadEpisode(f"{path}: has no video stream, expected one; leave it out")
    if len(streams) > 1:
        raise BadEpisode(f"{path}: has {len(streams)} video streams, expected one; write each to its own file")
    if streams[0].codec_context is None:
        raise BadEpisode(f"{path}: is in a codec that FFmpeg cannot read, expected another; convert it")
    if any(name.lower() == "alpha_mode" and text == "1" for name, text in streams[0].metadata.items()):
        raise BadEpisode(f"{path}: has transparency that FFmpeg does not decode, expected an opaque video; convert it")
    return streams[0]


def _is_cover(stream: Any) -> bool:
    return "ATTACHED_PIC" in str(getattr(stream, "disposition", "")).upper()


def _blocks(path: Path, film: Any, stream: Any, start: float) -> Iterator[FilmBlock]:
    stream.thread_type = "NONE"  # each process has its own core
    stream.codec_context.options = dict(STRICT)
    if start > 0:
        film.seek(max(int(start / stream.time_base), 0), stream=stream, backward=True)
    frames: list[np.ndarray] = []
    times: list[float] = []
    shown: Shown | None = None
    for frame, time in _timed(film, stream, start):
        shown = shown or Shown.of(path, frame, stream.sample_aspect_ratio, stream.codec_context.name)
        frames.append(shown.picture(frame))
        times.append(time)
        if len(frames) == block_length(*frames[0].shape[:2]):
            yield FilmBlock(np.stack(frames), np.array(times))
            frames, times = [], []
    if frames:
        yield FilmBlock(np.stack(frames), np.array(times))


def _timed(film: Any, stream: Any, start: float) -> Iterator[tuple[Any, float]]:
    """Frames and their presentation times in seconds, NaN where unknown."""
    by_number = _numbered(film, stream) and start <= 0
    period = 1 / float(stream.average_rate or 30)
    for number, frame in enumerate(_decoded(film, stream, whole=start <= 0)):
        yield frame, number * period if by_number else np.nan if frame.time is None else frame.time


def _numbered(film: Any, stream: Any) -> bool:
    """Whether a video has an order but no times: AVI with frames that refer to later ones."""
    return film.format.name == "avi" and bool(stream.codec_context.has_b_frames)


def _decoded(film: Any, stream: Any, whole: bool) -> Iterator[Any]:
    """All frames; raises an error at the first damaged one."""
    av = pyav()
    earliest = None
    checks = PacketChecks(av, film, stream, whole)
    period = 1 / float(stream.average_rate or 30)
    number, end = 0, None
    packets = film.demux(stream)
    while True:
        with _strictly(av, (film.format.name, stream.codec_context.name)):
            packet = next(packets, None)
            if packet is None:
                break
            if not whole and packet.pts is not None:
                # after a seek, frames before the first key frame refer to skipped frames
                earliest = packet.pts if earliest is None else earliest
                if packet.pts < earliest:
                    continue
            checks.check(packet)
            frames = stream.codec_context.decode(packet)
        for frame in frames:
            if frame.is_corrupt:
                raise Damaged(f"frame {number} is damaged")
            number, end = number + 1, end if frame.time is None else max(end or 0.0, frame.time + period)
            yield frame
    checks.check_number(number, end, period)


@contextmanager
def _strictly(av: Any, names: tuple[str, ...]) -> Iterator[None]:
    """Raise logged errors as exceptions, because some decoders log an error and continue.

    Args:
        av: the module.
        names: FFmpeg's names of the components whose messages count.

    Raises:
        Damaged: if an error was logged.
    """
    log = av.logging
    level, skips = log.get_level(), log.get_skip_repeated()
    log.set_level(ERROR_LEVEL)
    log.set_skip_repeated(False)
    try:
        with log.Capture(local=True) as messages:
            yield
    finally:
        log.set_level(level)
        log.set_skip_repeated(skips)
    told = [text for severity, name, text in messages if severity <= ERROR_LEVEL and name in names]
    if told:
        raise Damaged(" ".join(told[0].split()))
