"""Mixtures of data sets: their names and weights, and the shares of clips drawn from each."""

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
"""Prefix of data sets and models that are part of the package."""


def is_bundled(place: str | Path) -> bool:
    """Whether it is "bundled:NAME" instead of a path."""
    return str(place).startswith(BUNDLED)


@dataclass(frozen=True)
class Source:
    """One of the data sets of a mixture.

    Attributes:
        name: a directory, a file or "bundled:NAME".
        weight: share of the clips, above 0; None: the remaining share, divided in proportion to frames.
    """

    name: str
    weight: float | None = None

    @property
    def place(self) -> str:
        """The absolute path, which is the same for different names of the same data."""
        return self.name if is_bundled(self.name) else str(Path(self.name).resolve())


class Pools(NamedTuple):
    """Groups of episodes; within a group every possible clip is equally likely."""

    of_episode: Int64[np.ndarray, " E"]
    """The pool of each episode."""
    shares: Float64[np.ndarray, " P"]
    """The share of clips from each pool; sums to 1."""

    @classmethod
    def single(cls, episodes: int) -> Pools:
        """One group of all episodes."""
        return cls(np.zeros(episodes, np.int64), np.ones(1))


@dataclass(frozen=True)
class Mixture:
    """The assignment of shards to sources.

    Attributes:
        sources: one or more.
        of_shard: for each shard, the index of its source in `sources`.
    """

    sources: tuple[Source, ...]
    of_shard: tuple[int, ...]

    def pools(self, shard_of_episode: Int64[np.ndarray, " E"]) -> Pools:
        """The groups of episodes: one per source with a weight, and one for all other sources.

        Args:
            shard_of_episode: the shard of each episode. Sources without an episode get no clips.
        """
        of_episode = np.array(self.of_shard, np.int64)[shard_of_episode]
        weights = np.array([math.nan if each.weight is None else each.weight for each in self.sources])
        left = 1 - np.nansum(weights)
        pool_of_source = np.where(np.isnan(weights), len(weights), np.arange(len(weights)))
        kept, pool = np.unique(pool_of_source[of_episode], return_inverse=True)
        shares = np.append(np.nan_to_num(weights), max(left, 0.0))[kept] if len(kept) > 1 else np.ones(1)
        return Pools(pool.astype(np.int64), shares / shares.sum())


def parse_sources(text: str) -> tuple[Source, ...]:
    """Parse names of data sets: "DIR", or "DIR_A, DIR_B=0.3", where 0.3 is a share of the clips.

    A text that is an existing path is one name, even with commas or "=".

    Raises:
        AimeError: if a weight is invalid, the weights leave no share for sources without one, or a source is repeated.
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
    """The names as "DIR", or "DIR=0.3" with a share of the clips; a single source has no share."""
    if len(names) == 1:
        return list(names)
    return [name if share is None else f"{name}={share!r}" for name, share in zip(names, shares, strict=True)]


def join_sources(names: Sequence[str]) -> str:
    """Join names to one text for `parse_sources`.

    Raises:
        AimeError: if one of several names has a comma.
    """
    for name in names:
        if len(names) > 1 and "," in name and _is_there(name):
            raise AimeError(f"{name}: has a comma, by which names are told apart; expected none: rename or link it")
    return ", ".join(names)


def places_of(text: str) -> set[str]:
    """The absolute paths or bundled names of the data sets in a text.

    Raises:
        AimeError: see `parse_sources`.
    """
    return {source.place for source in parse_sources(text)}


def _is_there(name: str) -> bool:
    """Whether a file or directory of that name exists."""
    return os.path.exists(name)  # Path.exists raises an error for names that are too long


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
