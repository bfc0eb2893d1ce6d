"""Frames and rows of a table, paired by when they were taken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from aime.io.importers.interface import BadEpisode, block_length
from aime.io.importers.video import FilmBlock

LARGEST_GAP = 1.5
"""Of the usual time from a frame to the next. A longer one means that something between them is missing."""

OTHER_UNIT = (100.0, 20.0)
"""How many times longer a table's duration and its usual step are than the film's, or shorter, if its unit is wrong."""


class Pairs(NamedTuple):
    """Which frames and which rows belong together."""

    frames: Int64[np.ndarray, " n"]
    """Indices of frames, increasing."""
    rows: Int64[np.ndarray, " n"]
    """The row of each, increasing."""
    period: float
    """Seconds from a pair to the next."""
    times: Float64[np.ndarray, " n"]
    """Of the pairs, in seconds: the frames' own, or the rows' where these are fewer."""


def usual_step(times: Float64[np.ndarray, " n"]) -> float:
    """The median time from one to the next, in seconds; 0 where there are fewer than two."""
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def rate_of(times: Float64[np.ndarray, " n"]) -> float:
    """How many a second, on average, to a thousandth; 0 where there are fewer than two."""
    return round((len(times) - 1) / float(times[-1] - times[0]), 3) if len(times) > 1 and times[-1] > times[0] else 0.0


def check_increasing(times: Float64[np.ndarray, " n"], what: str) -> None:
    """Refuse times that are no numbers or go back.

    Args:
        times: in seconds.
        what: has them, for the message.

    Raises:
        BadEpisode: at the first that does.
    """
    wrong = np.flatnonzero(~np.isfinite(times))
    if len(wrong):
        raise BadEpisode(f"{what} {wrong[0]} has no time, expected one for each; mend it")
    back = np.flatnonzero(np.diff(times) <= 0)
    if len(back):
        at = int(back[0]) + 1
        raise BadEpisode(
            f"{what} {at} is at {times[at]:.3f} s, not after {what} {at - 1} at {times[at - 1]:.3f} s, expected "
            "increasing times; sort it"
        )


def check_even(times: Float64[np.ndarray, " n"], what: str, remedy: str) -> None:
    """Refuse times with a gap, in which something is missing.

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
    """Pair each frame with the nearest row, or where rows are fewer each row with the nearest frame.

    What lies before the first or after the last of the other kind has no partner and is left out. Between them all
    must have one within half a frame period.

    Args:
        frame_times: seconds on the film's clock, increasing.
        row_times: the same for rows.
        rows_are_in: the table's name, for messages.

    Raises:
        BadEpisode: if one has no partner, or too few have.
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
            "seconds from the film's start; mend the column of times"
        )
    chosen = np.flatnonzero(inside)
    frames, rows = (nearest[chosen], chosen) if rows_lead else (chosen, nearest[chosen])
    _check_distinct(rows if not rows_lead else frames, leading[chosen], rows_are_in)
    check_even(leading[chosen], "row" if rows_lead else "frame", "record it again, or cut the film there")
    return Pairs(frames.astype(np.int64), rows.astype(np.int64), period, leading[chosen])


def _check_unit(frame_times: np.ndarray, row_times: np.ndarray, rows_are_in: str) -> None:
    """Refuse milliseconds that are taken for seconds and the like: a few pairs at a wrong rate would be left."""
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
            "pairs, expected one of each; mend the column of times"
        )


def frames_at(
    film: Iterator[FilmBlock], times: Float64[np.ndarray, " r"], within: float, film_is: str, ends: bool
) -> Iterator[UInt8[np.ndarray, "n h w 3"]]:
    """The frame of a film that belongs to each row, in blocks.

    Args:
        film: its frames from the first time on or earlier.
        times: of the rows, in seconds on the film's clock, increasing.
        within: the greatest distance between a row and its frame, in seconds.
        film_is: the film's name, for messages.
        ends: whether the film must end with the rows.

    Raises:
        BadEpisode: if a row has no frame of its own so near, or the film goes on though it must not.
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
