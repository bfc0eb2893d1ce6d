"""The interface of importers, which list the episodes of a foreign data set and read them one at a time.

Common steps are in the other modules of this package: resizing, scaling actions, cutting long episodes, writing
shards, resuming after a kill, and the report.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float, UInt8

from aime.data.shards import Attribute
from aime.errors import AimeError

BLOCK_BYTES = 32 * 2**20
"""Largest size of decoded frames in memory."""

MAX_FRAME_BYTES = 64 * 2**20
"""Largest frame (4700x4700); a file that declares a larger one is refused as damaged."""


class BadEpisode(AimeError):
    """An episode that cannot be imported; `--skip-bad` skips it."""


@dataclass(frozen=True)
class Choice:
    """Import options; an importer supports some of them.

    Attributes:
        cameras: names of image features; several are tiled into one frame; empty: the importer's default.
        split: of the source; None: all splits.
        state: whether to import states, if any.
        actions: whether to import actions.
        action_columns: names of the action columns of a table, in order.
        discrete_actions: names of the action columns that are discrete.
        state_columns: names of the state columns of a table, in order.
        reward_column: name of the reward column; default: "reward", if it exists.
        time_column: name of the time column; without it, frames and rows are paired by number.
        time_unit: of the time column.
        every: number of table rows per frame.
        fps: frames per second, instead of those in a video file; pictures have none.
        depth_range: values of 16-bit grey pictures that become black and white.
    """

    cameras: tuple[str, ...] = ()
    split: str | None = None
    state: bool = True
    actions: bool = True
    action_columns: tuple[str, ...] = ()
    discrete_actions: tuple[str, ...] = ()
    state_columns: tuple[str, ...] = ()
    reward_column: str | None = None
    time_column: str | None = None
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    every: int = 1
    fps: float | None = None
    depth_range: tuple[float, float] | None = None


def refuse_others(source: Path, choice: Choice, heeded: Sequence[str]) -> None:
    """Refuse options that an importer does not support.

    Args:
        source: path of the source.
        choice: the options.
        heeded: the supported fields of `Choice`.

    Raises:
        AimeError: naming the flag.
    """
    for each in fields(Choice):
        if each.name not in heeded and getattr(choice, each.name) != each.default:
            flag = "--" + each.name.replace("cameras", "camera").replace("_", "-")
            raise AimeError(f"{source}: {flag} does not apply to data sets of this kind; leave it out")


class Item(NamedTuple):
    """One episode of a source."""

    name: str
    """File and record or episode, for messages."""
    weight: int
    """Approximate size of its decoded frames in bytes, 1 or more."""
    place: tuple[int | str, ...]
    """The position in the source, for the importer."""


class Survey(NamedTuple):
    """The episodes of a source."""

    items: Sequence[Item]
    """In the order of the data set."""
    bad: Sequence[BadEpisode] = ()
    """Errors of episodes that cannot be listed."""


@dataclass(frozen=True)
class Facts:
    """Properties of all episodes of a source.

    Attributes:
        action_width: A, or 0 without actions.
        state_names: the state's fields and their widths, in order; empty without a state.
        action_range: declared minimum and maximum of each action, `[A]` each, NaN if not declared; None if none is.
            Undeclared ranges are computed from the data.
        discrete: `[A]`, True for actions that are -1 or 1 (parts of a discrete choice), to which the user's range does
            not apply; empty if there are none.
        attributes: further attributes for the shards, such as the task.
        notes: lines for the report on how the source is read.
        action_names: the actions' names (columns or joints) and widths, in order; empty without names.
    """

    action_width: int
    state_names: Mapping[str, int] = field(default_factory=dict)
    action_range: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    discrete: tuple[bool, ...] = ()
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    action_names: Mapping[str, int] = field(default_factory=dict)

    @property
    def state_width(self) -> int:
        """S, or 0 without a state."""
        return sum(self.state_names.values())


@dataclass(frozen=True)
class Recorded:
    """An episode in the source's form, with the time convention of `aime.data.Episode`.

    Frames come in blocks, to bound memory. Missing fields are None.

    Attributes:
        frames: one block `[n, h, w, 3]`, 0 to 255, per camera, with the same n for all cameras.
        action: `[L, A]` in the source's units, taken after the frame of the same step. The last may be NaN.
        reward: `[L]`, received with the frame of the same step. The first may be NaN.
        terminated: `[L]`, true if the episode terminated with the frame.
        state: `[L, S]`.
        repeated: number of frames at the end, 0 or 1, that repeat the source's last picture, because the source lacks
            the frame after its last action.
        masks: instance ids, in blocks of any length, one per camera, of the frames' sizes.
        left_out: counts of omissions and changes, by text for the report; updated while the frames are read.
    """

    frames: Iterator[Sequence[UInt8[np.ndarray, "n h w 3"]]]
    action: Float[np.ndarray, "L A"] | None = None
    reward: Float[np.ndarray, " L"] | None = None
    terminated: Bool[np.ndarray, " L"] | None = None
    state: Float[np.ndarray, "L S"] | None = None
    repeated: int = 0
    masks: Iterator[Sequence[UInt8[np.ndarray, "n h w"]]] | None = None
    left_out: Counter[str] = field(default_factory=Counter)


class Importer(Protocol):
    """An importer of one kind of source; it can be pickled, because several processes read episodes."""

    @property
    def facts(self) -> Facts:
        """Properties of all episodes."""
        ...

    def survey(self) -> Survey:
        """List the episodes, without reading frames.

        Raises:
            AimeError: if the source is not of this kind.
        """
        ...

    def read(self, item: Item) -> Recorded:
        """Read one episode; its frames are read lazily.

        Raises:
            BadEpisode: if it is damaged; also while the frames are read.
        """
        ...

    def actions(self, item: Item) -> Float[np.ndarray, "L A"]:
        """Read the actions of one episode, in the source's units, to compute their range.

        Raises:
            BadEpisode: if they cannot be read.
        """
        ...


Sources = Mapping[str, Importer]
"""The data sets of a source, by their subdirectory of the output directory; "" is the directory itself."""


class Opener(Protocol):
    """The function `open_source`, which every importer's module defines."""

    def __call__(self, source: Path, choice: Choice) -> Sources:
        """Find the data sets of a source.

        Raises:
            AimeError: if it is not of this kind, or does not support the choice.
        """
        ...


def block_length(height: int, width: int) -> int:
    """The number of frames to decode at a time: 1 to 64."""
    return max(1, min(64, BLOCK_BYTES // max(height * width * 3, 1)))


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Sort naturally: file 9 before file 10."""
    return sorted(paths, key=_natural_key)


def _natural_key(path: Path) -> list[tuple[bool, int | str]]:
    """The parts of a path; parts of ASCII digits compare as numbers."""
    parts = re.findall(r"[0-9]+|[^0-9]+", str(path))
    return [(part[0] in "0123456789", int(part[:4000]) if part[0] in "0123456789" else part) for part in parts]


def one_number(name: str, values: np.ndarray, length: int) -> np.ndarray:
    """One number per row, `[L]`, from an array `[L]` or `[L, 1]`.

    Raises:
        BadEpisode: if the shape or type differs.
    """
    if values.dtype.kind not in "fiub" or values.ndim < 1 or len(values) != length or values.size != length:
        raise BadEpisode(f"'{name}' is {values.dtype} {values.shape}, expected a number for each of {length} rows")
    return values.reshape(length)


def truths(name: str, values: np.ndarray, length: int) -> Bool[np.ndarray, " L"]:
    """One boolean per row, from booleans or numbers 0 and 1.

    Raises:
        BadEpisode: if the shape differs, or there are other values.
    """
    numbers = one_number(name, values, length)
    odd = numbers[(numbers != 0) & (numbers != 1)]
    if len(odd):
        raise BadEpisode(f"'{name}' holds {odd[0]}, expected 0 or 1 in each row; fix or drop the episode")
    return numbers.astype(np.bool_)


def shifted_to_arrival(after: np.ndarray) -> np.ndarray:
    """Shift results of the action at t to the frame at t + 1: `[L]` -> `[L + 1]`; the first is NaN or False."""
    first = np.zeros(1, after.dtype) if after.dtype == np.bool_ else np.full(1, np.nan, np.float32)
    return np.concatenate([first, after])


def arriving(
    after: Recorded, terminal: Bool[np.ndarray, " L"] | None = None, last_action_is_real: bool = True
) -> Recorded:
    """Shift rewards and terminations from the row of their action to the following frame.

    The source has no frame after the last action. If the last row has a nonzero reward or a termination, a frame is
    added for them that repeats the last picture, with NaN as action and state.

    Args:
        after: the episode, with `reward[t]` and `terminated[t]` as results of `action[t]`.
        terminal: marks terminal *frames* (RLDS's `is_terminal`), instead of `after.terminated`. The mark of the last
            frame moves to an added one.
        last_action_is_real: False if the last row's action is a placeholder; it becomes NaN, unless a reward follows.

    Raises:
        BadEpisode: if the last row has a reward or a termination, but no action.
    """
    reward, ended = after.reward, after.terminated
    extends = _says_something(reward, ended)
    action = _known_actions(after.action, extends, last_action_is_real)
    stop = None if extends else -1
    moved_end = None if ended is None else shifted_to_arrival(ended)[:stop]
    if terminal is not None:
        moved_end = np.append(terminal[:-1], [False, *terminal[-1:]]) if extends else terminal
    moved = replace(
        after,
        action=action,
        reward=None if reward is None else shifted_to_arrival(reward.astype(np.float64))[:stop],
        terminated=moved_end,
    )
    if not extends:
        return moved
    state = None if after.state is None else _with_unknown_row(after.state)
    masks = None if after.masks is None else _with_last_repeated(after.masks)
    return replace(moved, frames=_with_last_repeated(after.frames), state=state, repeated=1, masks=masks)


def _says_something(reward: np.ndarray | None, ended: np.ndarray | None) -> bool:
    """Whether the last row has a reward or a termination, which needs an added frame."""
    rewarded = reward is not None and len(reward) > 0 and bool(np.isfinite(reward[-1]) and reward[-1] != 0)
    return rewarded or (ended is not None and len(ended) > 0 and bool(ended[-1]))


def _known_actions(action: np.ndarray | None, extends: bool, last_is_real: bool) -> np.ndarray | None:
    """The actions, with a NaN row for an added frame, and NaN instead of a last placeholder."""
    if action is None or len(action) == 0:
        return action
    if extends:
        if not np.isfinite(action[-1].astype(np.float64)).all():
            raise BadEpisode(
                "its last row has a reward or an end and an action that is no number, expected the action that led to "
                "it; fix or drop the episode"
            )
        return _with_unknown_row(action)
    if not last_is_real:
        action = action.astype(np.float64)
        action[-1] = np.nan
    return action


def _with_unknown_row(rows: np.ndarray) -> Float[np.ndarray, "L N"]:
    return np.concatenate([rows.astype(np.float64), np.full((1, *rows.shape[1:]), np.nan)])


def _with_last_repeated(
    frames: Iterator[Sequence[UInt8[np.ndarray, "n *pixels"]]],
) -> Iterator[Sequence[UInt8[np.ndarray, "n *pixels"]]]:
    last: list[UInt8[np.ndarray, "1 *pixels"]] = []
    for blocks in frames:
        last = [block[-1:] for block in blocks]
        yield blocks
    if last:
        yield last


def shifted_to_departure(before: Float[np.ndarray, "L A"]) -> Float[np.ndarray, "L A"]:
    """Shift actions from "led to frame t" to "taken after frame t"; the last is NaN."""
    return np.concatenate([before[1:], np.full((1, *before.shape[1:]), np.nan, before.dtype)])
