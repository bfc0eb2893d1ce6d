"""Converts episodes of a source to episodes of shards: resizes, scales, checks, and divides long ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from aime.data.action_scale import ActionScale
from aime.data.episodes import Episode
from aime.io.importers.fitting import Fit, fit_frames, fit_masks
from aime.io.importers.interface import BadEpisode, Recorded

EPISODE_BYTES = 128 * 2**20
"""Maximum bytes of an episode's frames: 10,900 frames of 64x64. Longer episodes are divided."""


LEFT_OUT = "left out: "
"""Prefix of the importer's own counts."""


@dataclass(frozen=True)
class Form:
    """Properties of all episodes of the data set.

    Attributes:
        image_size: height and width of a frame, in pixels.
        fit: of frames that are not square.
        scale: of the actions; None without actions.
        state_width: S, or 0.
        most_frames: maximum per episode.
    """

    image_size: int
    fit: Fit
    scale: ActionScale | None
    state_width: int
    most_frames: int

    @classmethod
    def sized(cls, image_size: int, fit: Fit, scale: ActionScale | None, state_width: int) -> Form:
        """A form with episodes of at most `EPISODE_BYTES`."""
        return cls(image_size, fit, scale, state_width, max(EPISODE_BYTES // (image_size**2 * 3), 1))


class _Rows:
    """The fields except frames, converted and checked. Unknown fields become NaN."""

    def __init__(self, recorded: Recorded, form: Form, tally: Counter[str]) -> None:
        known = [len(rows) for rows in (recorded.action, recorded.reward, recorded.state) if rows is not None]
        if len(set(known)) > 1:
            raise BadEpisode(f"actions, rewards and states have {known} rows, expected as many of each; fix it")
        self.length: int | None = known[0] if known else None
        self._recorded, self._form = recorded, form
        self._action = self._scaled_actions(tally)
        self._masks = _Masks(recorded, form)
        self._check_finite()

    def _scaled_actions(self, tally: Counter[str]) -> Float[np.ndarray, "L A"] | None:
        action, scale = self._recorded.action, self._form.scale
        if scale is None:
            return None
        if action is None:
            raise BadEpisode("has no actions, but others have; give it a table, or import all with --no-actions")
        if action.shape[1:] != (scale.width,):
            raise BadEpisode(f"has {action.shape[1:]} actions a step, expected ({scale.width},); import it apart")
        action = action.astype(np.float64)
        action[-1:][np.isnan(action[-1:]).any(axis=1)] = np.nan
        _check_rows("action", action[:-1])
        _check_rows("action", action[-1:][~np.isnan(action[-1:]).all(axis=1)], len(action) - 1)
        tally["clipped"] += scale.outside(action)
        return scale.to_unit(action).astype(np.float32)

    def _check_finite(self) -> None:
        recorded, width = self._recorded, self._form.state_width
        if width:
            if recorded.state is None or recorded.state.shape[1:] != (width,):
                shape = None if recorded.state is None else recorded.state.shape[1:]
                raise BadEpisode(f"has a state of width {shape}, expected ({width},); import with --no-state")
            # a frame that was added for the last row's reward has no state
            unknown = recorded.repeated or (len(recorded.state) > 1 and bool(np.isnan(recorded.state[-1]).all()))
            _check_rows("state", recorded.state[: len(recorded.state) - unknown])
        if recorded.reward is not None:
            _check_rows("reward", recorded.reward[1:, None], 1)

    def cut(self, pixels: UInt8[np.ndarray, "l H W 3"], start: int) -> Episode:
        """The part that belongs to `count` frames from `start` on."""
        rows, length = slice(start, start + len(pixels)), len(pixels)
        width = 1 if self._form.scale is None else self._form.scale.width
        recorded = self._recorded
        return Episode(
            pixels=pixels,
            action=np.full((length, width), np.nan, np.float32) if self._action is None else self._action[rows],
            reward=_column(recorded.reward, rows, np.nan, np.float32, length),
            terminated=_column(recorded.terminated, rows, False, np.bool_, length),
            state=recorded.state[rows].astype(np.float32)
            if self._form.state_width and recorded.state is not None
            else None,
            mask=self._masks.take(length),
        )

    def finish(self) -> None:
        """Check that there are no more masks than frames."""
        self._masks.finish()


class _Masks:
    """The masks of an episode, resized, read in parts."""

    def __init__(self, recorded: Recorded, form: Form) -> None:
        self._blocks, self._form = recorded.masks, form
        self._held: list[UInt8[np.ndarray, "n H W"]] = []

    def take(self, count: int) -> UInt8[np.ndarray, "{count} H W"] | None:
        """The next masks; None if the episode has none."""
        if self._blocks is None:
            return None
        while sum(map(len, self._held)) < count:
            blocks = next(self._blocks, None)
            if blocks is None:
                raise BadEpisode("has fewer masks than frames, expected one each; add them, or remove all masks")
            self._held.append(fit_masks(blocks, self._form.image_size, self._form.fit))
        masks = np.concatenate(self._held)
        self._held = [masks[count:]]
        return masks[:count]

    def finish(self) -> None:
        """Check that no masks are left."""
        left = any(len(part) for part in self._held)
        if self._blocks is not None and (left or next(self._blocks, None) is not None):
            raise BadEpisode("has more masks than frames, expected one each; remove those without a frame")


def _column(values: np.ndarray | None, rows: slice, absent: float, dtype: type, length: int) -> np.ndarray:
    return np.full(length, absent, dtype) if values is None else values[rows].astype(dtype)


def _check_rows(name: str, rows: Float[np.ndarray, "L N"], first: int = 0) -> None:
    with np.errstate(over="ignore"):
        wrong = ~np.isfinite(rows.astype(np.float32)).all(axis=1)
    if wrong.any():
        step = first + int(np.flatnonzero(wrong)[0])
        raise BadEpisode(f"'{name}' at step {step} is no finite number, expected one; fix or drop the episode")


def episodes_of(recorded: Recorded, form: Form, tally: Counter[str]) -> Iterator[Episode]:
    """The episode, or its parts if it is longer than `form.most_frames`.

    Args:
        recorded: from the importer; its frames are consumed.
        form: of the data set.
        tally: counts of "frames", "repeated" frames, "cut" episodes, "clipped" numbers, frames of each size
            "HEIGHTxWIDTH", and, with the prefix `LEFT_OUT`, the importer's counts.

    Raises:
        BadEpisode: if a value is missing or not finite, or frames and table differ in length; parts that were
            returned before must be discarded.
    """
    rows = _Rows(recorded, form, tally)
    shape, start, filled = (form.image_size, form.image_size, 3), 0, 0
    buffer = np.empty((0, *shape), np.uint8)
    for blocks in recorded.frames:
        _tally_sizes(tally, blocks)
        frames = fit_frames(blocks, form.image_size, form.fit)
        while len(frames):
            if len(buffer) == 0:  # memory is allocated only for pages that are written
                buffer = np.empty((form.most_frames, *shape), np.uint8)
            taken = frames[: form.most_frames - filled]
            buffer[filled : filled + len(taken)] = taken
            filled, frames = filled + len(taken), frames[len(taken) :]
            _check_length(rows.length, start + filled, recorded.repeated, done=False)
            if filled == form.most_frames and len(frames):
                yield rows.cut(buffer, start)
                start, filled, buffer = start + filled, 0, np.empty((0, *shape), np.uint8)
    _check_length(rows.length, start + filled, recorded.repeated, done=True)
    tally["cut"] += start > 0
    tally["repeated"] += recorded.repeated
    tally["frames"] += start + filled
    tally.update({f"{LEFT_OUT}{text}": count for text, count in recorded.left_out.items()})
    last = rows.cut(buffer[:filled], start)
    rows.finish()
    yield last


def _tally_sizes(tally: Counter[str], blocks: object) -> None:
    assert isinstance(blocks, list | tuple)
    for block in blocks:
        tally[f"{block.shape[1]}x{block.shape[2]}"] += len(block)


def _check_length(rows: int | None, frames: int, repeated: int, done: bool) -> None:
    if frames == 0 and done:
        raise BadEpisode("has no frame, expected one or more; leave it out")
    if rows is not None and (frames > rows or (done and frames != rows)):
        more = "or more " if not done else ""
        raise BadEpisode(
            f"has {frames - repeated} {more}frames but {rows - repeated} rows of actions, rewards or states, expected "
            "as many; cut one of them to the other's length"
        )
