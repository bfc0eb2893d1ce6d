"""Slots and attention against masks of the bodies: does a slot hold the body, and does the model attend to it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from torch import Tensor

from aime.attention.schema import Attention


class MaskErrors(NamedTuple):
    """Scores of each frame of B clips; NaN where a frame has none."""

    slot_iou: Float[Tensor, "B T"]
    """Of each instance with the slot that overlaps it most, averaged over the instances that the frame shows."""
    whole_iou: Float[Tensor, "B T"]
    """The same if one slot held the whole frame."""
    grid_iou: Float[Tensor, "B T"]
    """The same with the best slots that the attention grid allows: its cells are several pixels wide."""
    foreground_ari: Float[Tensor, "B T"]
    """NaN where fewer than two instances are shown."""
    attention: Float[Tensor, "B T"]
    """Mass of A_t on the body."""
    area: Float[Tensor, "B T"]
    """Share of the frame that the body covers: what a uniform A_t has on it; NaN where no body is shown."""


def score_masks(attention: Attention, masks: UInt8[Tensor, "B T H W"]) -> MaskErrors:
    """Compare slots and A_t of B clips with masks.

    Args:
        attention: the maps of the same frames.
        masks: id of the instance that each pixel shows, 0 the background.
    """
    batch, size = masks.shape[:2], masks.shape[-1]
    flat = masks.flatten(0, 1).long()
    slots = attention.slot_maps.flatten(0, 1).argmax(dim=1)
    size_of_cell = size // slots.shape[-1]
    slots = slots.repeat_interleave(size_of_cell, dim=-2).repeat_interleave(size_of_cell, dim=-1)
    tables = [contingency(own, found) for own, found in zip(flat, slots, strict=True)]
    body = F.avg_pool2d((flat > 0).float(), size_of_cell)
    mass = (attention.fused.flatten(0, 1) * body).sum(dim=(-2, -1))
    area = (flat > 0).float().mean(dim=(-2, -1))
    found = {
        "slot_iou": torch.tensor([slot_overlap(table) for table in tables]),
        "whole_iou": torch.tensor([whole_overlap(table) for table in tables]),
        "grid_iou": torch.tensor([best_on_grid(own, size_of_cell) for own in flat]),
        "foreground_ari": torch.tensor([foreground_ari(table) for table in tables]),
        "attention": torch.where(area > 0, mass, torch.nan),
        "area": torch.where(area > 0, area, torch.nan),
    }
    return MaskErrors(**{name: each.to(mass).unflatten(0, batch) for name, each in found.items()})


class GridScores(NamedTuple):
    """Scores of each frame of B clips on the attention grid, all instances as one body; NaN where none is shown.

    A cell is the body's if it shows any of it.
    """

    iou: Float[Tensor, "B T"]
    """Of the body's cells with those of the slot that overlaps them most; each cell is of the slot with most of it."""
    attention: Float[Tensor, "B T"]
    """Mass of A_t on the body's cells and their neighbours."""
    area: Float[Tensor, "B T"]
    """Share of those cells in all, which is what a uniform A_t has on them."""


def score_on_grid(attention: Attention, masks: UInt8[Tensor, "B T H W"]) -> GridScores:
    """Compare slots and A_t of B clips with masks, cell by cell.

    Args:
        attention: the maps of the same frames.
        masks: id of the instance that each pixel shows, 0 the background.
    """
    count = attention.slot_maps.shape[2]
    body = body_cells(masks, attention.fused.shape[-1])
    held = F.one_hot(attention.slot_maps.argmax(dim=2), count).permute(0, 1, 4, 2, 3) > 0
    both = (held & body[:, :, None]).sum(dim=(-2, -1))
    either = (held | body[:, :, None]).sum(dim=(-2, -1))
    near = dilated(body)
    shown = body.any(dim=-1).any(dim=-1)
    found = (both / either).amax(dim=2), (attention.fused * near).sum(dim=(-2, -1)), near.mean(dim=(-2, -1))
    return GridScores(*(torch.where(shown, each, torch.nan) for each in found))


def dilated(body: Bool[Tensor, "B T h w"]) -> Float[Tensor, "B T h w"]:
    """1 on the body and its neighbours, diagonal ones too, else 0."""
    # max pooling treats the frames as channels: each by itself
    return F.max_pool2d(body.float(), 3, stride=1, padding=1)


def body_cells(masks: UInt8[Tensor, "B T H W"], grid: int) -> Bool[Tensor, "B T grid grid"]:
    """The cells of a grid that show any of the body."""
    return F.adaptive_max_pool2d((masks > 0).float(), grid) > 0


def no_masks(unknown: Float[Tensor, "B T"]) -> MaskErrors:
    """Of clips without masks."""
    return MaskErrors(*(unknown for _ in MaskErrors._fields))


def contingency(masks: Int64[Tensor, "H W"], slots: Int64[Tensor, "H W"]) -> Float64[Tensor, "I S"]:
    """How many pixels of each id lie in each slot; the first row is the background."""
    ids, count = int(masks.max()) + 1, int(slots.max()) + 1
    table = torch.bincount((masks * count + slots).flatten(), minlength=ids * count)
    return rearrange(table.double(), "(i s) -> i s", s=count)


def slot_overlap(table: Float64[Tensor, "I S"]) -> float:
    """Mean best overlap: intersection over union of each instance with its best slot, averaged; NaN without instances.

    Pont-Tuset et al. 2017, "Multiscale combinatorial grouping", section 6, arXiv 1503.00848.
    """
    instances = table[1:][table[1:].sum(dim=1) > 0]
    if not len(instances):
        return float("nan")
    union = instances.sum(dim=1, keepdim=True) + table.sum(dim=0) - instances
    return float((instances / union).amax(dim=1).mean())


def whole_overlap(table: Float64[Tensor, "I S"]) -> float:
    """`slot_overlap` of one slot that holds everything."""
    return slot_overlap(rearrange(table.sum(dim=1), "i -> i 1"))


def best_on_grid(masks: Int64[Tensor, "H W"], cell: int) -> float:
    """`slot_overlap` of the best slots of whole cells, one for each instance; NaN without instances.

    Args:
        masks: id of the instance that each pixel shows, 0 the background.
        cell: pixels of a side of a cell.
    """
    scores = []
    for number in masks.unique().tolist():
        if number:
            covered = F.avg_pool2d((masks == number).double()[None], cell).flatten() * cell**2
            hits = covered.sort(descending=True).values.cumsum(0)
            taken = cell**2 * torch.arange(1, len(hits) + 1)
            scores.append(float((hits / (covered.sum() + taken - hits)).max()))
    return sum(scores) / len(scores) if scores else float("nan")


def foreground_ari(table: Float64[Tensor, "I S"]) -> float:
    """Adjusted Rand index of slots and instances over the foreground's pixels; NaN with fewer than two instances.

    Hubert & Arabie 1985, "Comparing partitions", equation 5; on the foreground as in Greff et al. 2019, arXiv
    1903.00450.
    """
    instances = table[1:][table[1:].sum(dim=1) > 0]
    if len(instances) < 2:
        return float("nan")
    pairs, own, slots = (_pairs(each).sum() for each in (instances, instances.sum(dim=1), instances.sum(dim=0)))
    expected = own * slots / _pairs(instances.sum())
    most = (own + slots) / 2
    # one slot for all pixels, or a slot for each: both partitions say nothing
    return 0.0 if most == expected else float((pairs - expected) / (most - expected))


def _pairs(count: Float64[Tensor, "*N"]) -> Float64[Tensor, "*N"]:
    return count * (count - 1) / 2
