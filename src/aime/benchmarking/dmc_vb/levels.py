"""The data sets of the distractor levels in a directory: finding, opening and checking them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from jaxtyping import Float

from aime.data import Dataset, Shard, Split, open_dataset
from aime.data.shard_files import shards_in
from aime.errors import AimeError
from aime.io.collect.distractors import DistractorKind

LEVELS: tuple[DistractorKind, ...] = get_args(DistractorKind)
"""none, static, dynamic: the order of the table."""

DIRECTORIES: dict[DistractorKind, tuple[str, ...]] = {
    "none": ("none",),
    "static": ("static", "static_medium"),
    "dynamic": ("dynamic", "dynamic_medium"),
}
"""Names of a level's directory: from `aime collect --distractor`, and from DMC-VB."""

HELD_OUT: tuple[Split, ...] = ("held-out", "test")

SPLIT = "train"
"""Subdirectory in which `aime import dmc-vb` writes a level's episodes."""


class LevelData(NamedTuple):
    """The data of one level."""

    level: DistractorKind
    dataset: Dataset
    """All episodes of the level."""
    train: int
    """Number of training episodes."""
    held_out: int
    """Number of held-out episodes."""
    test: int
    """Number of held-out episodes in the test part."""
    returns: Float[np.ndarray, " K"]
    """Returns of the K episodes that have rewards."""

    @property
    def path(self) -> str:
        """The path of the data set."""
        return self.dataset.name


def find_level(source: Path, level: DistractorKind) -> Path:
    """The directory of a level's shards: SOURCE/LEVEL, or SOURCE/LEVEL/train after an import.

    Raises:
        AimeError: if there is none, or more than one.
    """
    names = DIRECTORIES[level]
    there = [source / name for name in names if (source / name).is_dir()]
    if len(there) > 1:
        raise AimeError(
            f"{source}: has both {there[0].name} and {there[1].name}; expected one data set of the level {level}: move "
            "one of them"
        )
    if not there:
        _refuse_missing(source, level)
    for place in (there[0], there[0] / SPLIT):
        if place.is_dir() and shards_in(place):
            return place
    raise AimeError(
        f"{there[0]}: has no shards, nor has {SPLIT} in it; expected files *.h5: record them with `aime collect`, "
        "or import them with `aime import dmc-vb`"
    )


def _refuse_missing(source: Path, level: DistractorKind) -> None:
    if not source.is_dir():
        found = "a file" if source.exists() else "missing"
        raise AimeError(f"{source}: is {found}; expected a directory with the subdirectories {', '.join(LEVELS)}")
    others = [other for other in LEVELS if any((source / name).is_dir() for name in DIRECTORIES[other])]
    remedy = f"or leave it out with --levels {','.join(others)}" if others else "or pass the parent directory"
    raise AimeError(
        f"{source}: has no level {level}; expected a directory {' or '.join(DIRECTORIES[level])} in it: record it with "
        f"`aime collect --distractor {level}`, import it, {remedy}"
    )


def open_levels(source: Path, levels: Sequence[DistractorKind], held_out: float) -> tuple[LevelData, ...]:
    """The data of each level, checked.

    Args:
        source: the directory of the levels.
        levels: one or more.
        held_out: share of each level's episodes to hold out.

    Raises:
        AimeError: if a level is missing or damaged, has too few episodes, no actions or another distractor in its
            attributes, or if sizes of frames, actions or states differ between levels.
    """
    found = [_open(find_level(source, level), level, held_out) for level in levels]
    first = found[0].dataset
    for other in (each.dataset for each in found[1:]):
        for what, here, there in (
            ("image size", other.image_size, first.image_size),
            ("action width", other.action_width, first.action_width),
            ("state width", other.state_width, first.state_width),
            ("environment", other.attributes.get("environment"), first.attributes.get("environment")),
        ):
            if here != there:
                raise AimeError(
                    f"{other.name}: {what} is {here}; expected {there} as in {first.name}: use levels that differ "
                    "only in their distractors"
                )
    return tuple(found)


def _open(path: Path, level: DistractorKind, held_out: float) -> LevelData:
    whole = open_dataset(path)
    if whole.episodes < 3 or not held_out > 0:
        raise AimeError(
            f"{path}: has {whole.episodes} episode(s), of which --held-out {held_out} are held out; expected 1 or "
            "more to evaluate on and 2 or more to train on: record more, or raise --held-out"
        )
    unseen, test = (open_dataset(path, split, held_out).episodes for split in HELD_OUT)
    if whole.episodes - unseen < 2:
        raise AimeError(
            f"{path}: --held-out {held_out} leaves {whole.episodes - unseen} of {whole.episodes} episodes to train "
            "on; expected 2 or more: lower it"
        )
    noted = whole.attributes.get("distractor", level)
    if noted != level:
        raise AimeError(
            f"{path}: was recorded with distractor {noted}; expected {level}, as its directory is named: rename it, or "
            f"record it again with `aime collect --distractor {level}`"
        )
    if np.isnan(whole.read(0).action).all():
        raise AimeError(f"{path}: its first episode has no actions; expected actions to clone: use another data set")
    return LevelData(level, whole, whole.episodes - unseen, unseen, test, returns_of(whole))


def returns_of(dataset: Dataset) -> Float[np.ndarray, " K"]:
    """Returns of the episodes that have rewards, in the environment's units."""
    found = []
    for shard in map(Shard, dataset.files):
        for offset, length in zip(shard.offsets.tolist(), shard.lengths.tolist(), strict=True):
            rewards = np.asarray(shard.reward[offset : offset + length], np.float64)
            if not np.isnan(rewards).all():
                found.append(float(np.nansum(rewards)))
    return np.array(found)
