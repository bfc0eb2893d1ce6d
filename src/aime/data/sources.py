"""Several data sets as one: how a user names them, and how often clips are drawn from each."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from aime.errors import AimeError

BUNDLED = "bundled:"
"""Before the name of a data set or a model that comes with the package."""


def is_bundled(place: str | Path) -> bool:
    """Whether it is "bundled:NAME" and not a path."""
    return str(place).startswith(BUNDLED)


@dataclass(frozen=True)
class Source:
    """One of the data sets that training reads.

    Attributes:
        name: a directory, a file or "bundled:NAME".
        weight: its share of the clips, above 0; None for what the others leave, in proportion to its frames.
    """

    name: str
    weight: float | None = None

    @property
    def place(self) -> str:
        """By which two names of the same data are known: the absolute path."""
        return self.name if is_bundled(self.name) else str(Path(self.name).resolve())


class Pools(NamedTuple):
    """Groups of episodes that clips are drawn from; within a group every legal clip is equally likely."""

    of_episode: Int64[np.ndarray, " E"]
    """The pool of each episode."""
    shares: Float64[np.ndarray, " P"]
    """The share of the clips that comes from each pool; they sum to 1."""

    @classmethod
    def single(cls, episodes: int) -> Pools:
        """One group of all."""
        return cls(np.zeros(episodes, np.int64), np.ones(1))


@dataclass(frozen=True)
class Mixture:
    """Which shards belong to which source.

    Attributes:
        sources: one or more.
        of_shard: for each shard, the place of its source in `sources`.
    """

    sources: tuple[Source, ...]
    of_shard: tuple[int, ...]

    def pools(self, shard_of_episode: Int64[np.ndarray, " E"]) -> Pools:
        """The groups that episodes are drawn in: each source with a weight is one, all others together another.

        Args:
            shard_of_episode: the shard of each episode. Sources none of whose episodes are there get no clips.
        """
        of_episode = np.array(self.of_shard, np.int64)[shard_of_episode]
        weights = np.array([math.nan if each.weight is None else each.weight for each in self.sources])
        left = 1 - np.nansum(weights)
        pool_of_source = np.where(np.isnan(weights), len(weights), np.arange(len(weights)))
        kept, pool = np.unique(pool_of_source[of_episode], return_inverse=True)
        shares = np.append(np.nan_to_num(weights), max(left, 0.0))[kept] if len(kept) > 1 else np.ones(1)
        return Pools(pool.astype(np.int64), shares / shares.sum())


def parse_sources(text: str) -> tuple[Source, ...]:
    """The data sets that `text` names: "DIR", or "DIR_A, DIR_B=0.3", where 0.3 is a share of the clips.

    What exists as it stands is one name, whatever signs are in it.

    Raises:
        AimeError: if a weight is no share, the weights leave nothing for those that have none, or a name comes twice.
    """
    if _is_there(text):
        return (Source(text),)
    parts = [part.strip() for part in text.split(",")]
    sources = tuple(_parse(part) for part in parts if part)
    if not sources:
        raise AimeError(
            f"data is {text!r}, expected the name of a directory of shards, of a shard, or bundled:cartpole"
        )
    _check(text, sources)
    return sources


def with_shares(names: Sequence[str], shares: Sequence[float | None]) -> list[str]:
    """The sources as a user writes them: "DIR", or "DIR=0.3" with a share of the clips; one alone has all of them."""
    if len(names) == 1:
        return list(names)
    return [name if share is None else f"{name}={share!r}" for name, share in zip(names, shares, strict=True)]


def join_sources(names: Sequence[str]) -> str:
    """The one text that names them all, for `parse_sources`.

    Raises:
        AimeError: if one of several has a comma in its name, which would be read as two.
    """
    for name in names:
        if len(names) > 1 and "," in name and _is_there(name):
            raise AimeError(f"{name}: has a comma, by which names are told apart; expected none: rename or link it")
    return ", ".join(names)


def places_of(text: str) -> set[str]:
    """The absolute paths, or bundled names, of the data sets that a text names.

    Raises:
        AimeError: see `parse_sources`.
    """
    return {source.place for source in parse_sources(text)}


def _is_there(name: str) -> bool:
    """Whether a name is that of a file or directory; several together may be longer than a name can be."""
    return os.path.exists(name)  # where Path.exists raises an error


def _parse(part: str) -> Source:
    name, equals, number = part.rpartition("=")
    if not equals or _is_there(part):
        return Source(part)
    try:
        weight = float(number)
    except ValueError as error:
        raise AimeError(
            f"{part}: no such file or directory, and {number!r} is no weight; expected NAME or NAME=SHARE, such as "
            "DIR=0.3"
        ) from error
    if not (math.isfinite(weight) and weight > 0):
        raise AimeError(f"{part}: the weight is {number}, expected a number above 0, such as {name}=0.3")
    return Source(name.strip(), weight)


def _check(text: str, sources: Sequence[Source]) -> None:
    places = [source.place for source in sources]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise AimeError(f"{text}: names {sources[number].name} twice, expected each source once")
    given = [source.weight for source in sources if source.weight is not None]
    if len(given) < len(sources) and sum(given) >= 1:
        raise AimeError(
            f"{text}: the weights sum to {sum(given):g} and leave nothing for the sources without; expected less than "
            "1: lower them, or give every source a weight"
        )
