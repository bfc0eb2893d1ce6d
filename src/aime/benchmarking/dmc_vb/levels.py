"""A directory with a data set for each level of distraction: found, opened, and held against each other."""

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
"""In the order of the table: none, static, dynamic."""

DIRECTORIES: dict[DistractorKind, tuple[str, ...]] = {
    "none": ("none",),
    "static": ("static", "static_medium"),
    "dynamic": ("dynamic", "dynamic_medium"),
}
"""What a level's directory may be called: as `aime collect --distractor` has it, or as DMC-VB."""

HELD_OUT: tuple[Split, ...] = ("held-out", "test")

SPLIT = "train"
"""Where `aime import dmc-vb` puts a level's episodes, below its directory."""


class LevelData(NamedTuple):
    """The data of one level."""

    level: DistractorKind
    dataset: Dataset
    """All of its episodes."""
    train: int
    """How many episodes are learned from."""
    held_out: int
    """How many no training sees."""
    test: int
    """How many of these are of the test part, which is reported on."""
    returns: Float[np.ndarray, " K"]
    """Sums of the rewards of the K episodes that have any."""

    @property
    def path(self) -> str:
        """Where it is."""
        return self.dataset.name


def find_level(source: Path, level: DistractorKind) -> Path:
    """The directory of shards of a level: SOURCE/LEVEL, or SOURCE/LEVEL/train as an import leaves it.

    Raises:
        AimeError: if there is none, or two could be meant.
    """
    names = DIRECTORIES[level]
    there = [source / name for name in names if (source / name).is_dir()]
    if len(there) > 1:
        raise AimeError(
            f"{source}: has both {there[0].name} and {there[1].name}; expected one data set of the level {level}: move "
            "the other one away"
        )
    if not there:
        _refuse_missing(source, level)
    for place in (there[0], there[0] / SPLIT):
        if place.is_dir() and shards_in(place):
            return place
    raise AimeError(
        f"{there[0]}: holds no shards, nor does {SPLIT} in it; expected episodes named *.h5: record them by `aime "
        "collect`, or make them by `aime import dmc-vb`"
    )


def _refuse_missing(source: Path, level: DistractorKind) -> None:
    if not source.is_dir():
        found = "a file" if source.exists() else "nothing"
        raise AimeError(f"{source}: found {found} there; expected a directory with one of {', '.join(LEVELS)} each")
    others = [other for other in LEVELS if any((source / name).is_dir() for name in DIRECTORIES[other])]
    remedy = f"or leave it out by --levels {','.join(others)}" if others else "or name the directory above it"
    raise AimeError(
        f"{source}: has no level {level}; expected a directory {' or '.join(DIRECTORIES[level])} in it: record it by "
        f"`aime collect --distractor {level}`, import it, {remedy}"
    )


def open_levels(source: Path, levels: Sequence[DistractorKind], held_out: float) -> tuple[LevelData, ...]:
    """The data of each level, after all the checks that need no model.

    Args:
        source: the directory.
        levels: which, one or more.
        held_out: the share of each level's episodes that no training sees.

    Raises:
        AimeError: if a level is missing or damaged, has too few episodes, no actions, another distractor's name in its
            shards, or frames, actions or states that are not those of the other levels.
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
                    f"{other.name}: {what} is {here}; expected {there} as in {first.name}: the levels of one benchmark "
                    "differ in their distractors alone"
                )
    return tuple(found)


def _open(path: Path, level: DistractorKind, held_out: float) -> LevelData:
    whole = open_dataset(path)
    if whole.episodes < 3 or not held_out > 0:
        raise AimeError(
            f"{path}: has {whole.episodes} episode(s), of which --held-out {held_out} are kept from training; expected "
            "1 or more to judge on and 2 to learn from: record more, or raise --held-out"
        )
    unseen, test = (open_dataset(path, split, held_out).episodes for split in HELD_OUT)
    if whole.episodes - unseen < 2:
        raise AimeError(
            f"{path}: --held-out {held_out} leaves {whole.episodes - unseen} of {whole.episodes} episodes to learn "
            "from; expected 2 or more: lower it"
        )
    noted = whole.attributes.get("distractor", level)
    if noted != level:
        raise AimeError(
            f"{path}: was recorded with distractor {noted}; expected {level}, by its directory's name: rename it, or "
            f"record it again by `aime collect --distractor {level}`"
        )
    if np.isnan(whole.read(0).action).all():
        raise AimeError(f"{path}: its first episode has no actions; expected them: there is no behaviour to clone")
    return LevelData(level, whole, whole.episodes - unseen, unseen, test, returns_of(whole))


def returns_of(dataset: Dataset) -> Float[np.ndarray, " K"]:
    """Sums of the rewards of all episodes in the data set's files that have any, in the environment's units."""
    found = []
    for shard in map(Shard, dataset.files):
        for offset, length in zip(shard.offsets.tolist(), shard.lengths.tolist(), strict=True):
            rewards = np.asarray(shard.reward[offset : offset + length], np.float64)
            if not np.isnan(rewards).all():
                found.append(float(np.nansum(rewards)))
    return np.array(found)
