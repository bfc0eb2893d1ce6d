"""Pairs frames with rows of a table by time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from aime.io.importers.interface import BadEpisode, block_length
from aime.io.importers.video import FilmBlock

LARGEST_GAP = 1.5
"""Longer intervals, as multiples of the usual one, are gaps in which data is missing."""

OTHER_UNIT = (100.0, 20.0)
"""Ratio of durations and steps of table and video, or its inverse, from which on the time unit is wrong."""


class Pairs(NamedTuple):
    """Pairs of frames and rows."""

    frames: Int64[np.ndarray, " n"]
    """Indices of frames, increasing."""
    rows: Int64[np.ndarray, " n"]
    """The row of each frame, increasing."""
    period: float
    """Seconds between pairs."""
    times: Float64[np.ndarray, " n"]
    """Times of the pairs in seconds: of the frames, or of the rows if these are fewer."""


def usual_step(times: Float64[np.ndarray, " n"]) -> float:
    """The median interval in seconds; 0 for fewer than two times."""
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def rate_of(times: Float64[np.ndarray, " n"]) -> float:
    """The mean rate per second, to three decimals; 0 for fewer than two times."""
    return round((len(times) - 1) / float(times[-1] - times[0]), 3) if len(times) > 1 and times[-1] > times[0] else 0.0


def check_increasing(times: Float64[np.ndarray, " n"], what: str) -> None:
    """Check that times are numbers and increase.

    Args:
        times: in seconds.
        what: name of what has the times, for the message.

    Raises:
        BadEpisode: at the first wrong time.
    """
    wrong = np.flatnonzero(~np.isfinite(times))
    if len(wrong):
        raise BadEpisode(f"{what} {wrong[0]} has no time, expected one for each; fix it")
    back = np.flatnonzero(np.diff(times) <= 0)
    if len(back):
        at = int(back[0]) + 1
        raise BadEpisode(
            f"{what} {at} is at {times[at]:.3f} s, not after {what} {at - 1} at {times[at - 1]:.3f} s, expected "
            "increasing times; sort it"
        )


def check_even(times: Float64[np.ndarray, " n"], what: str, remedy: str) -> None:
    """Check that times have no gap.

    Raises:
        BadEpisode: at the first gap.
    """
    check_increasing(times, what)
    step = usual_step(times)
    gaps = np.flatnonzero(np.diff(times) > LARGEST_GAP * step)
    if len(gaps):
        at = int(gaps[0])
        raise BadEpisode(
            f"from {what} {at} at {times[at]:.3f} s to the next are {times[at + 1] - times[at]:.3f} s, expected about "
            f"{step:.3f} s; {remedy}"
        )


def pair_by_time(
    frame_times: Float64[np.ndarray, " f"], row_times: Float64[np.ndarray, " r"], rows_are_in: str
) -> Pairs:
    """Pair each frame with the nearest row, or each row with the nearest frame if rows are fewer.

    Frames and rows outside of each other's time range are left out. All others must have a partner within half a frame
    period.

    Args:
        frame_times: in seconds since the start of the video, increasing.
        row_times: of the rows, likewise.
        rows_are_in: name of the table, for messages.

    Raises:
        BadEpisode: if one has no partner, or too few have one.
    """
    check_increasing(frame_times, "frame")
    check_increasing(row_times, f"{rows_are_in}: row")
    frame_step, row_step = usual_step(frame_times), usual_step(row_times)
    _check_unit(frame_times, row_times, rows_are_in)
    rows_lead = row_step > LARGEST_GAP * frame_step > 0
    leading, others = (row_times, frame_times) if rows_lead else (frame_times, row_times)
    period, within = (row_step if rows_lead else frame_step), 0.5 * (frame_step or row_step) * (1 + 1e-6) + 1e-6
    nearest = _nearest(leading, others)
    distance = np.abs(others[nearest] - leading)
    inside = (leading >= others[0] - within) & (leading <= others[-1] + within)
    lonely = np.flatnonzero(inside & (distance > within))
    if len(lonely) or not inside.any():
        at = int(lonely[0]) if len(lonely) else 0
        kinds = ("row", "frame") if rows_lead else ("frame", "row")
        raise BadEpisode(
            f"{rows_are_in}: {kinds[0]} {at} at {leading[at]:.3f} s has no {kinds[1]} within {within:.3f} s (the "
            f"nearest is {kinds[1]} {nearest[at]} at {others[nearest[at]]:.3f} s), expected times on one clock, in "
            "seconds from the film's start; fix the column of times"
        )
    chosen = np.flatnonzero(inside)
    frames, rows = (nearest[chosen], chosen) if rows_lead else (chosen, nearest[chosen])
    _check_distinct(rows if not rows_lead else frames, leading[chosen], rows_are_in)
    check_even(leading[chosen], "row" if rows_lead else "frame", "record it again, or cut the film there")
    return Pairs(frames.astype(np.int64), rows.astype(np.int64), period, leading[chosen])


def _check_unit(frame_times: np.ndarray, row_times: np.ndarray, rows_are_in: str) -> None:
    """Check the time unit: with a wrong one only a few pairs would be found."""
    frame_step, row_step = usual_step(frame_times), usual_step(row_times)
    if not frame_step or not row_step:
        return
    film, rows = float(np.ptp(frame_times)), float(np.ptp(row_times))
    duration, step = OTHER_UNIT
    if (rows > duration * film and row_step > step * frame_step) or (
        film > duration * rows and frame_step > step * row_step
    ):
        raise BadEpisode(
            f"{rows_are_in}: its rows span {rows:.4g} s, {row_step:.4g} s apart, and the film's frames {film:.4g} s, "
            f"{frame_step:.4g} s apart, expected about the same; name the unit of the times with --time-unit"
        )


def _nearest(times: np.ndarray, others: np.ndarray) -> np.ndarray:
    after = np.clip(np.searchsorted(others, times), 1, max(len(others) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(others) - 1)
    return np.where(np.abs(others[before] - times) <= np.abs(others[after] - times), before, after)


def _check_distinct(partners: np.ndarray, times: np.ndarray, rows_are_in: str) -> None:
    twice = np.flatnonzero(np.diff(partners) <= 0)
    if len(twice):
        raise BadEpisode(
            f"{rows_are_in}: at {times[twice[0]]:.3f} s and {times[twice[0] + 1]:.3f} s frames and rows do not come in "
            "pairs, expected one of each; fix the column of times"
        )


def frames_at(
    film: Iterator[FilmBlock], times: Float64[np.ndarray, " r"], within: float, film_is: str, ends: bool
) -> Iterator[UInt8[np.ndarray, "n h w 3"]]:
    """The frame of a video for each row, in blocks.

    Args:
        film: its frames, starting at the first time or earlier.
        times: of the rows, in seconds since the start of the video, increasing.
        within: maximum distance between a row and its frame in seconds.
        film_is: name of the video, for messages.
        ends: whether the video must end with the rows.

    Raises:
        BadEpisode: if a row has no frame of its own within that distance, or the video must end and continues.
    """
    frames = _single(film)
    following = next(frames, None)
    block: list[np.ndarray] = []
    last = -np.inf
    for row, time in enumerate(times):
        nearest: tuple[np.ndarray, float] | None = None
        while following is not None and (nearest is None or following[1] <= time + within):
            if nearest is None or abs(following[1] - time) <= abs(nearest[1] - time):
                nearest = following
            elif following[1] > time:
                break
            following = next(frames, None)
        if nearest is None or not abs(nearest[1] - time) <= within or nearest[1] <= last:
            there = "it has ended" if nearest is None else f"the nearest is at {nearest[1]:.3f} s"
            raise BadEpisode(
                f"{film_is}: row {row} at {time:.3f} s has no frame of its own within {within:.3f} s ({there}), "
                "expected one for each row; the film lacks frames or runs at another rate: record it again"
            )
        last = nearest[1]
        block.append(nearest[0])
        if len(block) == block_length(*block[0].shape[:2]):
            yield np.stack(block)
            block = []
    if ends:
        _check_end(
            [*([] if following is None else [following[1]]), *(time for _, time in frames)], times, within, film_is
        )
    if block:
        yield np.stack(block)


def _check_end(rest: list[float], times: np.ndarray, within: float, film_is: str) -> None:
    beyond = [time for time in rest if time > times[-1] + 1.5 * within]
    if beyond:
        raise BadEpisode(
            f"{film_is}: goes on after the last row at {times[-1]:.3f} s with {len(beyond)} frames, expected a row for "
            "each; cut one of them to the other's length"
        )


def _single(film: Iterator[FilmBlock]) -> Iterator[tuple[np.ndarray, float]]:
    for block in film:
        yield from zip(block.frames, block.times.tolist(), strict=True)
