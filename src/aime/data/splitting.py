"""Choice of held-out episodes by their content, independent of file names and copies."""

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
    """The digests of one source's episodes."""

    digests: tuple[str, ...]
    bundled: bool
    """Whether it is bundled data, with fixed parts."""


@dataclass(frozen=True)
class Rule:
    """The rule for held-out episodes.

    Attributes:
        share: of each source's distinct episodes, in [0, 1).
        learned: digests of earlier training episodes, which are never held out.
        held: digests of earlier held-out episodes, which are chosen first.
        keep: hold out all of `held`, even beyond the share.
    """

    share: float
    learned: frozenset[str] = frozenset()
    held: frozenset[str] = frozenset()
    keep: bool = False

    def choose(self, sources: Sequence[SourceDigests]) -> frozenset[str]:
        """The digests to hold out. Sources are split separately; an episode that one source trains on is not held out.

        For a bundled source these are its validation and test parts. For others they are the first episodes in the
        order of digests: the share, rounded up, at least two of three or more episodes, never all; if possible, some
        of each half.
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
        # the half depends on the last digit only, so the order is nearly independent of it
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
    """The number of held-out episodes: at least two of three or more, never all."""
    if not share or episodes < 2:
        return 0
    # tolerance for rounding: 0.07 * 100 is slightly above 7
    wanted = math.ceil(share * episodes - 1e-9)
    return min(max(wanted, 2 if episodes > 2 else 1), episodes - 1)


def in_split(digest: str, split: Split, held_out: Collection[str]) -> bool:
    """Whether an episode belongs to a split, given the held-out digests."""
    if split == "all":
        return True
    if split == "train":
        return digest not in held_out
    return digest in held_out and (split == "held-out" or half_of(digest) == split)
