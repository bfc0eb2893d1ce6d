"""Columns of a folder's tables, and the rows of frames."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from aime.errors import AimeError
from aime.io.importers import tables
from aime.io.importers.action_parts import ActionPart, Choices, Quantities, Switches
from aime.io.importers.folder_actions import action_matrix, find_choices
from aime.io.importers.interface import BadEpisode, Choice, truths
from aime.io.importers.timing import Pairs, check_even, check_increasing, pair_by_time, usual_step

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Seconds per unit of time."""

_NOT_ACTIONS = re.compile(
    r"[_.\- ](time|timestamp|stamp|sec|secs|seconds|ms|us|ns|index|idx|step|frame|valid|mask|name|label|id|count|len|"
    r"length|duration|type|prob|probs|logp|logprob|log_prob|value|entropy|prev|previous|last|old|next)$",
    re.I,
)
_NUMBER = r"([_ ]?(no|nr|num|number|id|idx|index|count))"
_NUMBERS_OF_FRAMES = re.compile(rf"((video|image|img|camera)[_ ]?)?frame{_NUMBER}?|(image|img|picture){_NUMBER}")
_NUMBERS_OF_STEPS = re.compile(rf"(time[_ ]?)?steps?{_NUMBER}?|row{_NUMBER}?|index|idx")
_INDEX_OF_PANDAS = re.compile(r"unnamed: 0|\(column 1\)|__index_level_0__")
_TIMES = re.compile(
    r"((elapsed|ros|sim|log|wall|system|header|unix)[_. ]?)?(time|timestamp|datetime|t|stamp|seconds|secs)"
    r"([_. ]?(s|sec|ms|us|ns))?"
)


@dataclass(frozen=True)
class Wanted:
    """The columns to import, and their widths.

    Attributes:
        action: names of the action columns.
        state: names of the state columns.
        action_widths: numbers per row of each action column.
        state_widths: numbers per row of each state column.
        reward: name of the reward column, if there is one.
        terminated: name of the column of terminations.
        unused: names of columns that are not imported.
        choices: values of discrete action columns, by name.
        notes: for the report.
    """

    action: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    action_widths: tuple[int, ...] = ()
    state_widths: tuple[int, ...] = ()
    reward: str | None = None
    terminated: str | None = None
    unused: tuple[str, ...] = ()
    choices: tuple[tuple[str, Choices | Switches], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def taken(self) -> list[str]:
        """The names of all columns to import."""
        return [*self.action, *self.state, *(name for name in (self.reward, self.terminated) if name)]

    def actions(self, path: Path, found: tables.Columns) -> Float64[np.ndarray, "L A"]:
        """The actions of a table.

        Raises:
            BadEpisode: if a column is missing or has other content.
        """
        _check_widths(path, found, self.action, self.action_widths)
        tables.check_lengths(path, found, self.action)
        return action_matrix(path, found, self.action, dict(self.choices))

    def states(self, path: Path, found: tables.Columns) -> Float64[np.ndarray, "L S"]:
        """The states of a table.

        Raises:
            BadEpisode: as `actions` does.
        """
        _check_widths(path, found, self.state, self.state_widths)
        return tables.matrix(path, found, self.state)

    @property
    def parts(self) -> list[ActionPart]:
        """The kind of each action column, in order."""
        known = dict(self.choices)
        pairs = zip(self.action, self.action_widths, strict=True)
        return [known[name] if name in known else Quantities.unbounded(width) for name, width in pairs]


def _check_widths(path: Path, found: tables.Columns, names: Sequence[str], widths: Sequence[int]) -> None:
    """Check that columns are as wide as in the first table."""
    for name, width in zip(names, widths, strict=True):
        own = tables.matrix(path, found, [name]).shape[1]
        if own != width:
            raise BadEpisode(
                f"{path}: '{name}' has {own} numbers a row, expected {width} as in the first table; import it "
                "separately"
            )


def find_columns(paths: Sequence[Path], choice: Choice) -> Wanted:
    """Find the requested columns in all tables.

    Args:
        paths: of the tables, at least one.
        choice: what to import.

    Raises:
        AimeError: if a table lacks a requested column, or a column of other tables.
    """
    names = {path: tables.column_names(path) for path in paths}
    action = _alike(names, lambda found: _actions(found, choice), "action")
    if not action:
        path, found = next(iter(names.items()))
        raise AimeError(
            f"{path}: has no action column, found {sorted(found)}; name them with --action-columns, or --no-actions"
        )
    _refuse_doubtful(paths[0], action, choice)
    _refuse_two_roles(choice)
    state = _alike(names, lambda found: _states(found, choice), "state")
    reward = _alike(names, lambda found: _one(paths[0], found, choice.reward_column, "reward"), "reward")
    terminated = _alike(names, lambda found: _one(paths[0], found, None, "terminated"), "terminated")
    choices, notes = find_choices(paths, action, choice.discrete_actions)
    taken = {*action, *state, *reward, *terminated, choice.time_column}
    return Wanted(
        action,
        state,
        tables.widths(paths[0], action),
        tables.widths(paths[0], state),
        next(iter(reward), None),
        next(iter(terminated), None),
        tuple(sorted({name for found in names.values() for name in found} - taken)),
        tuple(choices.items()),
        notes,
    )


def _alike(names: dict[Path, list[str]], choose: Callable[[list[str]], tuple[str, ...]], kind: str) -> tuple[str, ...]:
    """The columns of the first table, if all others have the same."""
    (first, columns), *others = names.items()
    chosen = choose(columns)
    for path, found in others:
        other = choose(found)
        if set(other) != set(chosen):
            remedy = (
                f"name them with --{kind}-columns, or add them" if kind in ("action", "state") else "add or remove it"
            )
            raise AimeError(
                f"{path}: has the {kind} columns {sorted(other)} and {first.name} has {sorted(chosen)}, expected the "
                f"same in all tables; {remedy}"
            )
    return chosen


def _actions(found: Sequence[str], choice: Choice) -> tuple[str, ...]:
    if choice.action_columns:
        return tuple(name for name in choice.action_columns if name in found)
    return tuple(name for name in found if name.lower().startswith("action"))


def _states(found: Sequence[str], choice: Choice) -> tuple[str, ...]:
    if not choice.state:
        return ()
    if choice.state_columns:
        return tuple(name for name in choice.state_columns if name in found)
    return tuple(name for name in found if name.lower().startswith("state"))


def _one(path: Path, found: Sequence[str], named: str | None, usual: str) -> tuple[str, ...]:
    if named is not None:
        return (named,) if named in found else ()
    alike = [name for name in found if name.lower() == usual]
    if len(alike) > 1:
        raise AimeError(f"{path}: has the columns {alike}, expected one of '{usual}'; rename one of them")
    return tuple(alike)


def _refuse_doubtful(path: Path, action: Iterable[str], choice: Choice) -> None:
    doubtful = [name for name in action if _NOT_ACTIONS.search(name)]
    if doubtful and not choice.action_columns:
        raise AimeError(
            f"{path}: the column '{doubtful[0]}' begins with 'action' but may not be one, found {sorted(action)}; name "
            "the columns of actions with --action-columns"
        )


def _refuse_two_roles(choice: Choice) -> None:
    named = [*choice.action_columns, *choice.state_columns, choice.reward_column, choice.time_column]
    twice = next((name for name in named if name is not None and named.count(name) > 1), None)
    if twice is not None:
        raise AimeError(
            f"the column '{twice}' is named twice by --action-columns, --state-columns, --reward-column or "
            "--time-column, expected one use of each; remove one"
        )


def check_named(paths: Sequence[Path], choice: Choice) -> None:
    """Check that a table has the chosen columns.

    Raises:
        AimeError: at the first missing one.
    """
    named = [*choice.action_columns, *choice.state_columns, choice.reward_column, choice.time_column]
    for path in paths:
        found = tables.column_names(path)
        missing = next((name for name in named if name is not None and name not in found), None)
        if missing is not None:
            raise AimeError(f"{path}: has no column '{missing}', found {sorted(found)}; add it or name others")


@dataclass(frozen=True)
class Chosen:
    """The rows of an episode's frames, `[L]`, and the frames."""

    frames: Int64[np.ndarray, " L"]
    action: Float64[np.ndarray, "L A"]
    reward: Float64[np.ndarray, " L"] | None
    terminated: Bool[np.ndarray, " L"] | None
    state: Float64[np.ndarray, "L S"] | None
    reward_after: float
    """Rewards and terminations of rows after the last frame, within one frame period."""
    terminated_after: bool
    times: Float64[np.ndarray, " L"]
    """Times in seconds of the frames, or of the rows if these are fewer."""
    notes: dict[str, int]


def choose_rows(
    path: Path, wanted: Wanted, choice: Choice, times: Float64[np.ndarray, " f"], has_clock: bool
) -> Chosen:
    """Read a table, and pair its rows with frames.

    By time, a frame gets action and state of the nearest row, and the sum of the rewards and terminations of all rows
    since the previous frame.

    Args:
        path: the table.
        wanted: columns to import.
        choice: how to pair frames and rows.
        times: of the frames in seconds; without a clock only their number is used.
        has_clock: whether the times are known.

    Raises:
        BadEpisode: if frames and rows cannot be paired.
    """
    found = tables.read_table(path)
    tables.check_lengths(path, found, [*wanted.taken, *([choice.time_column] if choice.time_column else [])])
    action = wanted.actions(path, found)
    notes: dict[str, int] = {}
    _check_numbers(path, found, choice)
    if choice.time_column is not None:
        clock = tables.one_column(path, found, choice.time_column) * UNITS[choice.time_unit]
        if not has_clock:
            raise BadEpisode(
                f"{path}: pictures have no times, expected their frame rate for --time-column; give it with --fps"
            )
        _check_start(path, times)
        pairs = pair_by_time(times, clock, str(path))
        until = int(np.searchsorted(clock, times[pairs.frames[-1]] + 1.5 * pairs.period))
        note_left_out(notes, len(times), len(action), pairs)
    else:
        pairs, until = _pair_by_number(path, wanted, choice, times, len(action)), len(action)
        if has_clock:
            check_even(
                times, "frame", "name the column of the frames' times with --time-column, or their rate by --fps"
            )
            _check_same_clock(path, found, pairs, times)
    rows = pairs.rows
    if rows[-1] == len(action):  # the last frame's action is unknown
        action = np.concatenate([action, np.full((1, action.shape[1]), np.nan)])
    reward = tables.one_column(path, found, wanted.reward) if wanted.reward else None
    ends = None
    if wanted.terminated:
        ends = truths(wanted.terminated, tables.one_column(path, found, wanted.terminated), len(action))
    after = slice(int(rows[-1]) + 1, until)
    return Chosen(
        pairs.frames,
        action[rows],
        None if reward is None else _since_the_row_before(reward, rows),
        None if ends is None else _since_the_row_before(ends.astype(np.float64), rows) > 0,
        wanted.states(path, found)[rows] if wanted.state else None,
        0.0 if reward is None else float(reward[after].sum()),
        ends is not None and bool(ends[after].any()),
        pairs.times,
        notes,
    )


def note_left_out(notes: dict[str, int], frames: int, rows: int, pairs: Pairs) -> None:
    """Count frames and rows without a partner."""
    inner = int(pairs.frames[-1] - pairs.frames[0]) + 1
    counts = {
        "frames outside of their table's times left out": frames - inner,
        "frames between rows left out": inner - len(pairs.frames),
        "rows outside of their video's times left out": rows - int(pairs.rows[-1] - pairs.rows[0]) - 1,
        "rows between frames, of which only the reward was used": int(pairs.rows[-1] - pairs.rows[0])
        + 1
        - len(pairs.rows),
    }
    notes.update({text: count for text, count in counts.items() if count})


def _pair_by_number(path: Path, wanted: Wanted, choice: Choice, times: np.ndarray, rows: int) -> Pairs:
    """Every `choice.every`-th row; the last frame may have no action."""
    frames, every = len(times), choice.every
    given = -(-rows // every)
    actions_alone = given == frames - 1 and not (wanted.state or wanted.reward or wanted.terminated)
    if given == frames or actions_alone:
        numbers = np.arange(frames)
        return Pairs(numbers, np.minimum(numbers * every, rows), 0.0, times)
    counted = f"{frames} frames but {rows} rows" + (f", of which --every {every} takes {given}" if every > 1 else "")
    more = ", or one fewer if it has actions only" if given != frames - 1 else " for states and rewards"
    raise BadEpisode(
        f"{path}: has {counted}, expected as many{more}; pair them by time with --time-column, or by --every N rows"
    )


def _since_the_row_before(
    values: Float64[np.ndarray, " r"], rows: Int64[np.ndarray, " L"]
) -> Float64[np.ndarray, " L"]:
    """The sum of the values after the previous frame's row up to a frame's row; of the first frame its own."""
    between = [values[before + 1 : row + 1].sum() for before, row in itertools.pairwise(rows)]
    return np.array([values[rows[0]], *between])


def _check_start(path: Path, times: np.ndarray) -> None:
    step = usual_step(times)
    if len(times) and abs(times[0]) > 0.5 * step + 1e-3:
        raise BadEpisode(
            f"{path}: the film's first frame is at {times[0]:.3f} s of its clock, expected 0; frames may "
            "be missing: correct the video's times, or set its rate with --fps"
        )


def _named(found: tables.Columns, names: re.Pattern[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Columns of one number per row whose name, without a unit in brackets, matches."""
    for name, column in found.items():
        bare = re.sub(r"\s*[\[(](s|sec|ms|us|µs|ns)[\])]$", "", name.lower())
        if names.fullmatch(bare) and column.ndim == 1 and column.dtype.kind in "fiu" and len(column) > 1:
            yield name, column


def _is_time(index: np.ndarray) -> bool:
    """Whether an index of pandas holds times and no numbers of rows."""
    return bool((index != np.floor(index)).any())


def _check_numbers(path: Path, found: tables.Columns, choice: Choice) -> None:
    """Refuse rows that are out of order or missing, as far as a column that numbers them says so."""
    for kind in (_NUMBERS_OF_FRAMES, _NUMBERS_OF_STEPS, _INDEX_OF_PANDAS, _TIMES):
        for name, column in _named(found, kind):
            steps = np.diff(column.astype(np.float64))
            wrong = np.flatnonzero(~(steps > 0))
            if kind is _INDEX_OF_PANDAS and len(wrong) and (column[wrong + 1] == column[0]).all():
                continue  # tables were joined; a gap in an index that increases says that rows were dropped
            times = kind is _TIMES or (kind is _INDEX_OF_PANDAS and _is_time(column))
            if choice.time_column is None and not len(wrong):
                if kind is _NUMBERS_OF_FRAMES and choice.every == 1:
                    wrong = np.flatnonzero(steps != 1)
                elif not times:
                    wrong = np.flatnonzero(steps != np.median(steps))
            if len(wrong):
                row = int(wrong[0])
                raise BadEpisode(
                    f"{path}: the column '{name}' goes from {column[row]:.6g} to {column[row + 1]:.6g} at row "
                    f"{row + 1}, expected rows in order without a gap; sort or complete it, or rename the column"
                )


def _check_same_clock(path: Path, found: tables.Columns, pairs: Pairs, times: np.ndarray) -> None:
    """Refuse rows whose times say that they belong to other frames than their number does."""
    index = ((name, column) for name, column in _named(found, _INDEX_OF_PANDAS) if _is_time(column))
    for name, column in (*_named(found, _TIMES), *index) if len(times) > 2 else ():
        last = min(len(column) - 1, int(pairs.rows[-1]))
        rows = pairs.rows[pairs.rows <= last]
        clock, film = column[rows].astype(np.float64), times[: len(rows)] - times[0]
        check_increasing(clock, f"{path}: row")
        if (np.diff(clock) == 1).all():  # it counts rows
            continue
        clock = clock - clock[0]
        ratio = clock[-1] / film[-1]
        unit = min(UNITS.values(), key=lambda seconds: abs(np.log(ratio * seconds)))
        off = np.abs(clock * unit - film)
        if abs(ratio * unit - 1) > 0.02 or off.max() > 0.5 * usual_step(times) + 1e-3:
            row = int(off.argmax())
            raise BadEpisode(
                f"{path}: row {row} is {clock[row]:.6g} after the first in '{name}', its frame {film[row]:.3f} s, "
                f"expected the same; pair them by time with --time-column '{name}', or say with --fps how fast "
                "the film was recorded"
            )
