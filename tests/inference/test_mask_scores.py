"""Slots and attention against masks, by hand and by counting pairs."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from aime.attention.schema import Attention
from aime.inference.mask_scores import best_on_grid, contingency, foreground_ari, score_masks, slot_overlap

CELL, GRID = 4, 4
SIZE = CELL * GRID


def attention(slots: Tensor, fused: Tensor) -> Attention:
    """Maps whose slots are certain: `slots` `[h,w]` numbers, `fused` `[h,w]`."""
    unused = torch.zeros(1, 1, GRID, GRID)
    maps = torch.nn.functional.one_hot(slots, 3).permute(2, 0, 1).float()[None, None]
    return Attention(**(dict.fromkeys(Attention._fields, unused) | {"slot_maps": maps, "fused": fused[None, None]}))


def test_a_slot_on_the_body_and_attention_on_it() -> None:
    masks = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.uint8)
    masks[..., :8, :4] = 1
    slots = torch.zeros(GRID, GRID, dtype=torch.int64)
    slots[:2, 0] = 2
    fused = torch.zeros(GRID, GRID)
    fused[0, 0], fused[3, 3] = 0.75, 0.25
    found = score_masks(attention(slots, fused), masks)
    assert float(found.slot_iou) == 1
    assert float(found.whole_iou) == pytest.approx(32 / 256)
    assert float(found.grid_iou) == 1
    assert math.isnan(float(found.foreground_ari))
    assert float(found.attention / found.area) == pytest.approx(0.75 * 8)
    # a slot one cell too large, and a uniform map
    slots[2, 0] = 2
    found = score_masks(attention(slots, torch.full((GRID, GRID), 1 / 16)), masks)
    assert float(found.slot_iou) == pytest.approx(2 / 3)
    assert float(found.attention / found.area) == pytest.approx(1)


def test_the_best_slot_of_whole_cells_is_that_of_all_selections() -> None:
    masks = torch.randint(0, 2, (6, 6), generator=torch.Generator().manual_seed(0))
    masks[:, 2:] *= torch.tensor([1, 0, 1, 0])
    cells = [(slice(row, row + 2), slice(column, column + 2)) for row in (0, 2, 4) for column in (0, 2, 4)]
    best = 0.0
    for chosen in itertools.product((False, True), repeat=9):
        slot = torch.zeros(6, 6, dtype=torch.bool)
        for cell, taken in zip(cells, chosen, strict=True):
            slot[cell] = taken
        best = max(best, float((slot & (masks > 0)).sum() / (slot | (masks > 0)).sum()))
    assert best_on_grid(masks, 2) == pytest.approx(best)


def test_a_frame_without_a_body_has_no_score() -> None:
    masks = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.uint8)
    zeros = torch.zeros(GRID, GRID, dtype=torch.int64)
    assert all(bool(each.isnan()) for each in score_masks(attention(zeros, torch.full((GRID, GRID), 1 / 16)), masks))


def test_each_instance_has_its_best_slot() -> None:
    masks = torch.tensor([[1, 1, 0, 2, 2, 2]])
    slots = torch.tensor([[1, 1, 1, 0, 0, 2]])
    assert slot_overlap(contingency(masks, slots)) == pytest.approx((2 / 3 + 2 / 3) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_the_foreground_ari_is_that_of_counted_pairs(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks, slots = (torch.randint(0, count, (1, 24), generator=generator) for count in (4, 3))
    body = masks[0] > 0
    labels = list(zip(masks[0][body].tolist(), slots[0][body].tolist(), strict=True))
    pairs = list(itertools.combinations(labels, 2))
    both = sum(a[0] == b[0] and a[1] == b[1] for a, b in pairs)
    own, other = (sum(a[each] == b[each] for a, b in pairs) for each in (0, 1))
    expected = own * other / len(pairs)
    assert foreground_ari(contingency(masks, slots)) == pytest.approx(
        (both - expected) / ((own + other) / 2 - expected)
    )


def test_the_foreground_ari_of_the_same_parts_is_one_and_of_one_slot_nought() -> None:
    masks = torch.tensor([[0, 0, 1, 1, 2, 2]])
    assert foreground_ari(contingency(masks, torch.tensor([[0, 1, 2, 2, 0, 0]]))) == pytest.approx(1)
    assert foreground_ari(contingency(masks, torch.zeros(1, 6, dtype=torch.int64))) == pytest.approx(0)
