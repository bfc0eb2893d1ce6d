"""How ranks share out data sets of DMC-VB's size: no clip twice, every clip somebody's, nobody without.

The partition and the draws are those of training (`aime.data.drawing`); only episode lengths are made up, and no frame
is read.

python benchmarks/sampler.py --ranks 1 64 1024 --out sampler.json
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from aime.data.drawing import Drawing
from aime.data.sources import Pools

LENGTH, BATCH, SHARD_FRAMES = 50, 16, 10_900
"""Frames of a clip, clips of a rank's batch, frames of a shard that `aime import` writes."""

BINS = 200


@dataclass(frozen=True)
class Shares:
    """How one data set is shared out.

    Attributes:
        data: its name.
        ranks: that share it.
        frames: of the whole set.
        clips: of the whole set.
        clips_of_a_rank: the fewest and the most that a rank draws from.
        shards_of_a_rank: the most files that a rank reads.
        unowned: clips that no rank draws from.
        drawn: clips drawn by all ranks together.
        drawn_outside: draws from another rank's part.
        drawn_by_two: clips that two ranks have drawn.
        seen: share of all clips that were drawn.
        expected: that share, if every clip is equally likely: 1 - exp(-drawn / clips).
        chi_square: of the draws over 200 equal parts of the data, per degree of freedom; 1 is expected.
        least_batch: clips in the smallest batch that any rank got.
    """

    data: str
    ranks: int
    frames: int
    clips: int
    clips_of_a_rank: tuple[int, int]
    shards_of_a_rank: int
    unowned: int
    drawn: int
    drawn_outside: int
    drawn_by_two: int
    seen: float
    expected: float
    chi_square: float
    least_batch: int


def locomotion(scale: float = 1.0) -> Int64[np.ndarray, " E"]:
    """Like DMC-VB's locomotion: 36 sets of a million frames, in episodes of 500."""
    return np.full(max(1, round(scale * 36 * 2000)), 500)


def ant_maze(scale: float = 1.0) -> Int64[np.ndarray, " E"]:
    """As many bytes as 1.4 TB of DMC-VB's frames, in episodes that end at the goal: 20 to 1000 frames."""
    count = max(1, round(scale * 400_000))
    return np.clip(np.random.default_rng(0).lognormal(6.0, 0.7, count), 20, 1000).astype(np.int64)


def share_out(data: str, lengths: Int64[np.ndarray, " E"], ranks: int, steps: int) -> Shares:
    """Let every rank draw for some steps, and count."""
    clips = np.maximum(lengths - LENGTH + 1, 1)
    begins, total = np.cumsum(clips) - clips, int(clips.sum())
    pools = Pools.single(len(lengths))
    owners, ranges, drawn, outside, least = np.full(0, 0), [], [], 0, BATCH
    for rank in range(ranks):
        drawing = Drawing(lengths, pools, BATCH, LENGTH, 0, rank, ranks)
        (own,) = drawing.ranges
        places = [drawing.draw(step) for step in range(steps)]
        numbers = np.concatenate([begins[each.episodes] + each.starts for each in places])
        outside += int(((numbers < own.first) | (numbers >= own.stop)).sum())
        least = min(least, *(len(each.starts) for each in places))
        ranges.append(own)
        drawn.append(np.unique(numbers))
        owners = np.append(owners, numbers)
    sizes = np.array([each.stop - each.first for each in ranges])
    seen, by = np.unique(np.concatenate(drawn), return_counts=True)
    counts = np.bincount(owners * BINS // total, minlength=BINS)
    return Shares(
        data=data,
        ranks=ranks,
        frames=int(lengths.sum()),
        clips=total,
        clips_of_a_rank=(int(sizes.min()), int(sizes.max())),
        shards_of_a_rank=int(np.ceil(sizes.max() * lengths.sum() / total / SHARD_FRAMES)) + 1,
        unowned=_unowned([(each.first, each.stop) for each in ranges], total),
        drawn=len(owners),
        drawn_outside=outside,
        drawn_by_two=int((by > 1).sum()),
        seen=len(seen) / total,
        expected=float(-np.expm1(-len(owners) / total)),
        chi_square=float(((counts - counts.mean()) ** 2 / counts.mean()).sum() / (BINS - 1)),
        least_batch=least,
    )


def _unowned(ranges: list[tuple[int, int]], total: int) -> int:
    """Clips between the ranges."""
    end, missing = 0, 0
    for first, stop in sorted(ranges):
        missing, end = missing + max(first - end, 0), max(end, stop)
    return missing + total - end


def main() -> None:
    """Simulate, print a table, and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 64, 1024])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of episodes")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    sets = {"locomotion": locomotion(options.scale), "ant maze": ant_maze(options.scale)}
    found = [
        share_out(name, lengths, ranks, options.steps) for name, lengths in sets.items() for ranks in options.ranks
    ]
    print(
        "data        ranks     clips  of a rank             shards  unowned  outside  by two    seen  expected  chi2/df"
    )
    for each in found:
        low, high = each.clips_of_a_rank
        print(
            f"{each.data:<10} {each.ranks:>6} {each.clips:>10}  {low:>9}..{high:<9} {each.shards_of_a_rank:>7} "
            f"{each.unowned:>8} {each.drawn_outside:>8} {each.drawn_by_two:>7} {each.seen:>8.3%} {each.expected:>8.3%} "
            f"{each.chi_square:>8.2f}"
        )
    if options.out is not None:
        options.out.write_text(json.dumps([asdict(each) for each in found], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
