"""Action units: conversion of the shards' scales to one scale per data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from aime.data.action_scale import ActionScale
from aime.data.shards import Shard
from aime.errors import AimeError

_SLACK = 1e-4
"""Tolerance of a rescaled action beyond [-1, 1]."""


class Line(NamedTuple):
    """The map from actions of one scale to those of another: `gain` · a + `offset`."""

    gain: Float64[np.ndarray, " A"]
    offset: Float64[np.ndarray, " A"]

    @classmethod
    def between(cls, own: ActionScale, target: ActionScale) -> Line:
        """From scale `own` to `target`; an action that is constant in the target becomes 0."""
        low, high = np.array(own.low), np.array(own.high)
        centre, half = (np.array(target.high) + target.low) / 2, (np.array(target.high) - target.low) / 2
        inverse = np.where(half > 0, 1 / np.where(half > 0, half, 1), 0)
        return cls((high - low) / 2 * inverse, ((high + low) / 2 - centre) * inverse)


@dataclass(frozen=True)
class Units:
    """The scale of a data set's actions.

    Attributes:
        scale: the values of -1 and 1; None if unknown.
        lines: the conversion of each shard's actions; None if they are in that scale.
    """

    scale: ActionScale | None
    lines: tuple[Line | None, ...]

    @classmethod
    def of_shards(cls, shards: Sequence[Shard], scale: ActionScale | None = None) -> Units:
        """The common units of several shards.

        Args:
            shards: one or more, with actions of the same width.
            scale: the requested scale; default: the shards' own, or if they differ the smallest that contains all.

        Raises:
            AimeError: if some shards have units and others do not, or actions do not fit into the requested scale.
        """
        noted = [_scale_of(shard) for shard in shards]
        known = list(dict.fromkeys(each for each in noted if each is not None))
        if scale is None and not known:
            return cls(None, (None,) * len(shards))
        target = scale or ActionScale.of_all(known)
        lines = tuple(_line(shard, own, target) for shard, own in zip(shards, noted, strict=True))
        return cls(target, lines)

    def read(self, shard: int, action: Float32[np.ndarray, "L A"]) -> Float32[np.ndarray, "L A"]:
        """Convert actions of a shard to these units, in [-1, 1]; NaN stays NaN."""
        line = self.lines[shard]
        return action if line is None else np.clip(action * line.gain + line.offset, -1, 1).astype(np.float32)


def _scale_of(shard: Shard) -> ActionScale | None:
    scale = ActionScale.of_attributes(shard.attributes)
    if scale is not None and scale.width != shard.action_width:
        raise AimeError(
            f"{shard.path}: attributes 'action_low' and 'action_high' are {scale.width} wide, expected "
            f"{shard.action_width} as 'action'; import the data set again"
        )
    return scale


def _leaves_a_constant(shard: Shard, own: ActionScale, target: ActionScale) -> bool:
    """Whether an action that is constant in the target scale has another value in the shard."""
    low, high, constant = (np.array(each) for each in (own.low, own.high, target.low))
    fixed = constant == target.high
    half = (high - low) / 2
    off = np.abs(shard.action * half + (low + high) / 2 - constant)[:, fixed]
    return bool((off > (_SLACK * (half + np.abs(constant)))[fixed]).any())


def _line(shard: Shard, own: ActionScale | None, target: ActionScale) -> Line | None:
    if own == target or (own is None and target.is_identity) or np.isnan(shard.action).all():
        return None
    if own is None:
        raise AimeError(
            f"{shard.path}: does not say in which units its actions are, expected attributes 'action_low' and "
            f"'action_high' as where they are {target}; import it with --action-range LOW HIGH"
        )
    line = Line.between(own, target)
    moved = shard.action * line.gain + line.offset
    if np.nanmax(np.abs(moved)) > 1 + _SLACK or _leaves_a_constant(shard, own, target):
        raise AimeError(
            f"{shard.path}: has actions of {own}, of which some lie outside of the run's {target}; import it with "
            "--action-range as the run's data was"
        )
    return line
