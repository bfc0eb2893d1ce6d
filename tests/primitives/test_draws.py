"""Random indices under a mask are valid and uniform."""

from __future__ import annotations

import torch

from aime.primitives.draws import draw_valid_first, draw_with_replacement, random_gaps


def test_only_what_counts_is_drawn_and_each_alike() -> None:
    torch.manual_seed(0)
    counted = torch.tensor([False, True, True, False, False, True, False])
    shares = torch.bincount(draw_with_replacement(counted, 30_000), minlength=7) / 30_000
    assert not shares[~counted].any()
    assert (shares[counted] - 1 / 3).abs().max() < 0.02
    first = torch.stack([draw_valid_first(counted, 2) for _ in range(3000)])
    assert set(first.unique().tolist()) == {1, 2, 5}
    assert (first[:, 0] != first[:, 1]).all()
    assert (torch.bincount(first.flatten(), minlength=7)[counted] / 6000 - 1 / 3).abs().max() < 0.03


def test_where_too_little_counts_the_rest_comes_behind() -> None:
    counted = torch.tensor([False, True, False, True])
    order = draw_valid_first(counted, 9)
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    assert sorted(order[:2].tolist()) == [1, 3]
    nothing = torch.zeros(4, dtype=torch.bool)
    assert ((draw_with_replacement(nothing, 5) >= 0) & (draw_with_replacement(nothing, 5) < 4)).all()


def test_gaps_are_whole_rows_and_spans() -> None:
    torch.manual_seed(0)
    gaps = random_gaps(4000, 10, 0.5, torch.device("cpu"))
    assert 0.4 < gaps.any(1).float().mean() < 0.5
    assert (torch.diff(gaps.int(), dim=1).abs().sum(1) <= 2).all(), "one span a row"
    assert not random_gaps(100, 10, 0.0, torch.device("cpu")).any()
