"""Ranks divide the clips: every clip belongs to one rank, and a single rank has all."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aime.data.drawing import ClipRange, Drawing
from aime.data.sources import Pools

LENGTHS = np.array([40, 7, 23, 64, 16])


def drawings(ranks: int, pools: Pools | None = None, batch: int = 64, length: int = 5) -> list[Drawing]:
    pools = pools or Pools.single(len(LENGTHS))
    return [Drawing(LENGTHS, pools, batch, length, 0, rank, ranks) for rank in range(ranks)]


def clips_of(drawing: Drawing, steps: int = 40) -> set[tuple[int, int]]:
    places = [drawing.draw(step) for step in range(steps)]
    return {pair for each in places for pair in zip(each.episodes.tolist(), each.starts.tolist(), strict=True)}


@settings(max_examples=60, deadline=None)
@given(clips=st.integers(1, 10**12), ranks=st.integers(1, 5000), data=st.data())
def test_stretches_follow_each_other(clips: int, ranks: int, data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, ranks - 1))
    stretch = ClipRange.of_rank(clips, rank, ranks)
    assert 0 <= stretch.first < stretch.stop <= clips
    if clips >= ranks:
        assert stretch.stop - stretch.first - clips // ranks in (0, 1)
        assert stretch.stop == (ClipRange.of_rank(clips, rank + 1, ranks).first if rank + 1 < ranks else clips)


@pytest.mark.parametrize("ranks", [1, 2, 7, 65])
def test_every_clip_belongs_to_one_rank(ranks: int) -> None:
    parts = [clips_of(drawing) for drawing in drawings(ranks)]
    legal = {(episode, start) for episode, length in enumerate(LENGTHS) for start in range(length - 4)}
    assert set().union(*parts) == legal
    assert not any(one & other for one, other in itertools.combinations(parts, 2))


def test_more_ranks_than_clips_all_have_one() -> None:
    parts = [clips_of(drawing, 1) for drawing in drawings(500)]
    assert all(parts)
    assert set().union(*parts) == clips_of(drawings(1)[0])


def test_every_rank_has_a_part_of_every_pool() -> None:
    pools = Pools(np.array([0, 0, 1, 0, 1]), np.array([0.25, 0.75]))
    parts = drawings(3, pools)
    shares = [np.mean([pools.of_episode[part.draw(step).episodes].mean() for step in range(100)]) for part in parts]
    assert shares == pytest.approx([0.75] * 3, abs=0.02)
    sets = [clips_of(part, 100) for part in parts]
    assert len(set().union(*sets)) == sum(map(len, sets)) == 36 + 3 + 19 + 60 + 12


def test_a_rank_reads_a_stretch_of_the_files() -> None:
    for drawing, episodes in zip(drawings(3), ({0, 1, 2}, {2, 3}, {3, 4}), strict=True):
        assert {episode for episode, _ in clips_of(drawing)} <= episodes


def test_the_draws_of_several_pools_never_change() -> None:
    pools = Pools(np.array([0, 0, 1, 0, 1]), np.array([0.25, 0.75]))
    drawn = Drawing(LENGTHS, pools, 6, 5, 1, 1, 2).draw(1000)
    found = list(zip(drawn.episodes.tolist(), drawn.starts.tolist(), strict=True))
    assert found == [(4, 9), (4, 4), (4, 11), (2, 17), (4, 6), (2, 15)]
