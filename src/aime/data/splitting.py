"""Which episodes are held out: decided by what they contain, so that no renaming, copying or linking changes it."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from aime.data.bundled import bundled_parts
from aime.data.identity import HALVES, half_of

Split = Literal["all", "train", "held-out", "validation", "test"]

SPLITS: tuple[Split, ...] = ("all", "train", "held-out", "validation", "test")


class SourceDigests(NamedTuple):
    """The episodes of one source, by content."""

    digests: tuple[str, ...]
    bundled: bool
    """Whether it comes with the package, in parts."""


@dataclass(frozen=True)
class Rule:
    """How episodes are chosen to be held out.

    Attributes:
        share: of each source's different episodes, in [0, 1).
        learned: digests that a model has learned from already: they are never held out.
        held: digests that were held out before: they come first.
        keep: hold out all of `held`, however small the share.
    """

    share: float
    learned: frozenset[str] = frozenset()
    held: frozenset[str] = frozenset()
    keep: bool = False

    def choose(self, sources: Sequence[SourceDigests]) -> frozenset[str]:
        """The digests to hold out; each source is split by itself, and what one of them trains on is held out of none.

        Of a bundled source they are its validation and test parts. Of any other they are the first in the order of the
        digests: the share, rounded up, at least two of three or more episodes, never all. Where there is a choice,
        some fall into each half.
        """
        found = [self._of_one(source) for source in sources]
        trained = {each for source, held in zip(sources, found, strict=True) for each in set(source.digests) - held}
        return frozenset().union(*found) - trained

    def _of_one(self, source: SourceDigests) -> frozenset[str]:
        episodes = frozenset(source.digests)
        if source.bundled:
            return frozenset(each for each in episodes if bundled_parts().get(each) in HALVES) - self.learned
        wanted = count_held_out(len(episodes), self.share)
        if not wanted:
            return frozenset()
        if self.keep:
            wanted = max(wanted, len(episodes & self.held))
        # the last digit alone decides the half, so that the order of the digests is independent of it
        order = sorted(episodes - self.learned, key=lambda each: (each not in self.held, each))
        return frozenset(self._with_both_halves(order, wanted, len(episodes)))

    def _with_both_halves(self, order: list[str], wanted: int, episodes: int) -> list[str]:
        chosen, rest = order[:wanted], order[wanted:]
        other = [each for each in rest if chosen and half_of(each) not in map(half_of, chosen)]
        if len(chosen) < 2 or not other:
            return chosen
        if chosen[-1] not in self.held:
            return [*chosen[:-1], other[0]]
        return [*chosen, other[0]] if len(chosen) + 1 < episodes else chosen


def count_held_out(episodes: int, share: float) -> int:
    """How many of so many different episodes are held out: one for each half where there are three, and never all."""
    if not share or episodes < 2:
        return 0
    # 0.07 * 100 is a little more than 7 in binary
    wanted = math.ceil(share * episodes - 1e-9)
    return min(max(wanted, 2 if episodes > 2 else 1), episodes - 1)


def in_split(digest: str, split: Split, held_out: Collection[str]) -> bool:
    """Whether an episode belongs to a split, given what is held out."""
    if split == "all":
        return True
    if split == "train":
        return digest not in held_out
    return digest in held_out and (split == "held-out" or half_of(digest) == split)
