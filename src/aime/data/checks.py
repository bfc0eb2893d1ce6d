"""Validation of a data set's fields, with messages that name the position of an error.

Every check takes `source`, the file or call that the message names first.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from aime.errors import AimeError


def check_layout(source: str, lengths: Int[np.ndarray, " E"], offsets: Int[np.ndarray, " E"], frames: int) -> None:
    """Require consecutive episodes without gaps that cover all frames.

    Raises:
        AimeError: naming the first episode that does not fit.
    """
    if lengths.shape != offsets.shape:
        raise AimeError(
            f"{source}: 'ep_len' has {len(lengths)} entries and 'ep_offset' {len(offsets)}, expected as many; "
            "write the file again"
        )
    if len(lengths) == 0:
        raise AimeError(f"{source}: holds no episode, expected at least one; record or convert it again")
    _check_order(source, lengths, offsets, frames)
    if int(lengths.sum()) != frames:
        raise AimeError(
            f"{source}: 'ep_len' sums to {int(lengths.sum())} but 'pixels' has {frames} frames, expected the same; "
            "the file was cut or written wrongly, write it again"
        )


def _check_order(source: str, lengths: Int[np.ndarray, " E"], offsets: Int[np.ndarray, " E"], frames: int) -> None:
    wrong = (lengths < 1) | (lengths > frames)
    if wrong.any():
        episode = int(np.flatnonzero(wrong)[0])
        raise AimeError(
            f"{source}: 'ep_len' of episode {episode} is {lengths[episode]}, expected 1 to {frames}, the frames of "
            "'pixels'; leave empty episodes out"
        )
    expected = np.cumsum(lengths) - lengths
    if (offsets != expected).any():
        episode = int(np.flatnonzero(offsets != expected)[0])
        raise AimeError(
            f"{source}: 'ep_offset' of episode {episode} is {offsets[episode]}, expected {expected[episode]}, the "
            "sum of 'ep_len' before it; store the episodes one after the other"
        )


def check_actions(
    source: str, action: Float[np.ndarray, "N A"], lengths: Int[np.ndarray, " E"], offsets: Int[np.ndarray, " E"]
) -> None:
    """Require finite actions in [-1, 1]; the last action of an episode, or all of its actions, may be NaN.

    Raises:
        AimeError: naming the first invalid step.
    """
    wrong = ~(np.abs(action) <= 1).all(axis=1)
    last = offsets + lengths - 1
    wrong[last] &= ~np.isnan(action[last]).all(axis=1)
    wrong &= ~_in_unknown_episode(np.isnan(action).all(axis=1), lengths, offsets)
    if not wrong.any():
        return
    row = int(np.flatnonzero(wrong)[0])
    values = action[row]
    value = values[~(np.abs(values) <= 1)][0]
    if np.isfinite(value):
        expected, remedy = "a value in [-1, 1]", "divide the actions by the range of the actuators"
    else:
        expected, remedy = (
            "a number (NaN may be only the last action of an episode, as a whole, or all of its actions)",
            "fix or drop the episode",
        )
    raise AimeError(f"{source}: 'action' at {_position(row, offsets)} is {value:g}, expected {expected}; {remedy}")


def check_rewards(
    source: str, reward: Float[np.ndarray, " N"], lengths: Int[np.ndarray, " E"], offsets: Int[np.ndarray, " E"]
) -> None:
    """Require finite rewards; the first reward of an episode, or all of its rewards, may be NaN.

    Raises:
        AimeError: naming the first invalid step.
    """
    wrong = ~np.isfinite(reward)
    wrong[offsets] &= ~np.isnan(reward[offsets])
    wrong &= ~_in_unknown_episode(np.isnan(reward), lengths, offsets)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise AimeError(
            f"{source}: 'reward' at {_position(row, offsets)} is {reward[row]:g}, expected a number (NaN may be only "
            "the first reward of an episode, or all of its rewards); fix or drop the episode"
        )


def check_states(source: str, state: Float[np.ndarray, "N S"], offsets: Int[np.ndarray, " E"]) -> None:
    """Require states without infinity; NaN stands for an unknown number.

    Raises:
        AimeError: naming the first step with infinity.
    """
    wrong = np.isinf(state).any(axis=1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise AimeError(
            f"{source}: 'state' at {_position(row, offsets)} holds infinity, expected numbers, or NaN where one is "
            "not known; fix it or leave 'state' out"
        )


def _in_unknown_episode(
    unknown: Bool[np.ndarray, " N"], lengths: Int[np.ndarray, " E"], offsets: Int[np.ndarray, " E"]
) -> Bool[np.ndarray, " N"]:
    """True for rows of episodes that are unknown at every step, as those of plain video."""
    return np.repeat(np.logical_and.reduceat(unknown, offsets), lengths)


def _position(row: int, offsets: Int[np.ndarray, " E"]) -> str:
    """The position of a row as text: "episode 3, step 17"."""
    episode = int(np.searchsorted(offsets, row, side="right")) - 1
    return f"episode {episode}, step {row - int(offsets[episode])}"
