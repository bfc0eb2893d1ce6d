"""What an importer is: it lists the episodes of a foreign data set, and reads one of them at a time.

Everything else is the same for all of them and lies in the modules beside this one: resizing, scaling actions, cutting
long episodes, writing shards, going on after a kill, reporting.
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
"""Decoded frames that an importer has in hand at a time, whatever the episode's length."""

MAX_FRAME_BYTES = 64 * 2**20
"""A file that declares a larger frame than this (4700x4700) is taken for damaged or hostile."""


class BadEpisode(AimeError):
    """An episode that cannot be taken; with `--skip-bad` the import goes on without it."""


@dataclass(frozen=True)
class Choice:
    """What the user wants of a source; every importer says which of these it heeds.

    Attributes:
        cameras: names of image features; several are tiled into one frame, none means the importer's own choice.
        split: one split of the source, or all of them.
        state: whether to take the state vectors, if there are any.
        actions: whether to take the actions; without them the data set is video alone.
        action_columns: names of the columns of a table that are actions, in this order.
        discrete_actions: names of those of them that are choices.
        state_columns: the same for the state.
        reward_column: the name of the column of rewards; "reward" where there is one, by default.
        time_column: the name of the column of times; without it frames and rows are paired by their number.
        time_unit: of that column.
        every: one of so many rows of a table belongs to a frame.
        fps: frames a second, in place of what films say, and for pictures, which say nothing.
        depth_range: what becomes black and what white in 16-bit grey pictures, in their own numbers.
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
    """Refuse a wish that a kind of source does not heed, instead of passing over it.

    Args:
        source: where it lies.
        choice: what the user wants.
        heeded: the fields of `Choice` that the kind heeds.

    Raises:
        AimeError: naming the flag.
    """
    for each in fields(Choice):
        if each.name not in heeded and getattr(choice, each.name) != each.default:
            flag = "--" + each.name.replace("cameras", "camera").replace("_", "-")
            raise AimeError(f"{source}: {flag} does not apply to data sets of this kind; leave it out")


class Item(NamedTuple):
    """One episode of a source, by where it lies."""

    name: str
    """For messages: the file, and the record or episode in it."""
    weight: int
    """Roughly the bytes of its decoded frames: a measure of work and memory, 1 or more."""
    place: tuple[int | str, ...]
    """What the importer needs to find it again."""


class Survey(NamedTuple):
    """What a source holds, before any frame has been read."""

    items: Sequence[Item]
    """In the order in which the episodes shall lie in the data set."""
    bad: Sequence[BadEpisode] = ()
    """What cannot even be listed."""


@dataclass(frozen=True)
class Facts:
    """What holds for every episode of a source.

    Attributes:
        action_width: A, or 0 where there are no actions.
        state_names: the fields of the state vector and their widths, in order; empty where there is no state.
        action_range: lowest and highest value of each action as the source declares it, `[A]` each, NaN for those of
            which it does not; None if it does for none. What is not declared is found in the numbers themselves.
        discrete: `[A]`, whether each action is a part of a choice or a switch: -1 or 1, whatever range the user
            sets for the others; empty where none is.
        attributes: more facts for the shards' attributes, such as the task.
        notes: what the user must know of how the source is read, and of what is not, a line each, for the report.
        action_names: the columns or joints of the actions and their widths, in order; empty where they have no names.
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
        """S, or 0 where there is no state."""
        return sum(self.state_names.values())


@dataclass(frozen=True)
class Recorded:
    """An episode as its source has it, with the time convention of `aime.data.Episode`.

    Frames come in blocks, so that an hour of video needs no more memory than a second. What is not known is None.

    Attributes:
        frames: blocks `[n, h, w, 3]`, 0 to 255, for each camera one; every block has the same n for all cameras.
        action: `[L, A]` in the source's units, taken after seeing the frame of the same step. The last may be NaN.
        reward: `[L]`, received on arrival at the frame. The first may be NaN.
        terminated: `[L]`, whether the arrival ended the episode for good.
        state: `[L, S]`.
        repeated: how many frames at the end, 0 or 1, repeat the last picture of the source, because the source has
            none of what its last action led to.
        masks: the id of the instance that each pixel shows, in blocks of any length, for each camera one; of the sizes
            of the frames.
        left_out: counts of what is not taken or is changed, by words for the report; is added to while the frames are
            read.
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
    """One kind of source. An importer pickles, because episodes are read in several processes."""

    @property
    def facts(self) -> Facts:
        """What holds for all episodes."""
        ...

    def survey(self) -> Survey:
        """List the episodes, without reading a frame.

        Raises:
            AimeError: if the source is none of this kind.
        """
        ...

    def read(self, item: Item) -> Recorded:
        """Read one episode; its frames only as they are asked for.

        Raises:
            BadEpisode: if it is damaged, here or while the frames are read.
        """
        ...

    def actions(self, item: Item) -> Float[np.ndarray, "L A"]:
        """The actions of one episode alone, in the source's units, for the pass that finds their range.

        Raises:
            BadEpisode: if they cannot be read.
        """
        ...


Sources = Mapping[str, Importer]
"""The data sets that a source turns out to hold, by where each goes below the output directory; "" is that itself."""


class Opener(Protocol):
    """Opens a source of one kind: the one function that an importer's module must offer, named `open_source`."""

    def __call__(self, source: Path, choice: Choice) -> Sources:
        """Find the data sets of a source.

        Raises:
            AimeError: if it is none of this kind, or the choice does not fit it.
        """
        ...


def block_length(height: int, width: int) -> int:
    """How many frames of a size to decode at a time: 1 to 64."""
    return max(1, min(64, BLOCK_BYTES // max(height * width * 3, 1)))


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Sorted as people count: file 9 before file 10."""
    return sorted(paths, key=_counted)


def _counted(path: Path) -> list[tuple[bool, int | str]]:
    """A path's parts, of which those of digits 0 to 9 compare as numbers."""
    parts = re.findall(r"[0-9]+|[^0-9]+", str(path))
    return [(part[0] in "0123456789", int(part[:4000]) if part[0] in "0123456789" else part) for part in parts]


def one_number(name: str, values: np.ndarray, length: int) -> np.ndarray:
    """A number for each of `length` rows: `[L]`, of `[L]`, `[L, 1]` and the like.

    Raises:
        BadEpisode: if there are more or fewer, or they are no numbers.
    """
    if values.dtype.kind not in "fiub" or values.ndim < 1 or len(values) != length or values.size != length:
        raise BadEpisode(f"'{name}' is {values.dtype} {values.shape}, expected a number for each of {length} rows")
    return values.reshape(length)


def truths(name: str, values: np.ndarray, length: int) -> Bool[np.ndarray, " L"]:
    """A truth value for each of `length` rows, of truth values or of numbers that are 0 or 1.

    Raises:
        BadEpisode: if there are more or fewer, or other values.
    """
    numbers = one_number(name, values, length)
    odd = numbers[(numbers != 0) & (numbers != 1)]
    if len(odd):
        raise BadEpisode(f"'{name}' holds {odd[0]}, expected 0 or 1 in each row; mend or drop the episode")
    return numbers.astype(np.bool_)


def shifted_to_arrival(after: np.ndarray) -> np.ndarray:
    """From "what came of the action at t" to "what came on arrival at t + 1": `[L]` -> `[L + 1]`.

    The first has no cause and is NaN (False for truth values).
    """
    first = np.zeros(1, after.dtype) if after.dtype == np.bool_ else np.full(1, np.nan, np.float32)
    return np.concatenate([first, after])


def arriving(
    after: Recorded, terminal: Bool[np.ndarray, " L"] | None = None, last_action_is_real: bool = True
) -> Recorded:
    """An episode whose rewards and ends came of the action of the same row, moved to the frames that they led to.

    The last row's action led to a frame that the source does not have. Where that row brought a reward other than 0 or
    an end, one more frame takes them: it repeats the last picture, its action and its state are NaN. Nowhere else is a
    frame added, because nothing would be lost.

    Args:
        after: the episode; `reward[t]` and `terminated[t]` came of `action[t]`.
        terminal: where a source says that a *frame* is the end (RLDS's `is_terminal`), in place of
            `after.terminated`. The end of a last frame moves to the added one.
        last_action_is_real: False where the last row has an action only because every row has one. It is then
            unknown (NaN), unless a reward came of it.

    Raises:
        BadEpisode: if the last row has a reward or an end and no action that could have led to it.
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
    """Whether the last row has a reward or an end that would be lost without a frame to arrive at."""
    rewarded = reward is not None and len(reward) > 0 and bool(np.isfinite(reward[-1]) and reward[-1] != 0)
    return rewarded or (ended is not None and len(ended) > 0 and bool(ended[-1]))


def _known_actions(action: np.ndarray | None, extends: bool, last_is_real: bool) -> np.ndarray | None:
    """The actions, with a row more for a frame more, and without a last one that nothing came of."""
    if action is None or len(action) == 0:
        return action
    if extends:
        if not np.isfinite(action[-1].astype(np.float64)).all():
            raise BadEpisode(
                "its last row has a reward or an end and an action that is no number, expected the action that led to "
                "it; mend or drop the episode"
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
    """From "the action that led to frame t" to "the action taken after frame t": the last is NaN."""
    return np.concatenate([before[1:], np.full((1, *before.shape[1:]), np.nan, before.dtype)])
