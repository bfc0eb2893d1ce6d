"""Random indices under a mask, and random time spans, without host synchronisation."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def draw_with_replacement(valid: Bool[Tensor, " N"], draws: int) -> Int[Tensor, " draws"]:
    """Uniform random indices of valid entries, with replacement; arbitrary indices if no entry is valid."""
    order = valid.cumsum(0)
    # the product with a large count may round up to the count
    number = (torch.rand(draws, device=valid.device) * order[-1]).long().minimum(order[-1] - 1)
    return torch.searchsorted(order, number + 1)


def draw_valid_first(valid: Bool[Tensor, " N"], draws: int) -> Int[Tensor, " draws"]:
    """`draws` (at most N) different indices in random order; invalid entries come after all valid ones."""
    keys = torch.rand(valid.shape, device=valid.device).masked_fill(~valid, 2.0)
    return keys.argsort()[:draws]


def random_spans(batch: int, length: int, share: float, device: torch.device) -> Bool[Tensor, "B T"]:
    """True on one random span in an expected `share` of the rows; spans last 1..length frames before clipping."""
    time = torch.arange(length, device=device)
    start = torch.randint(length, (batch, 1), device=device)
    stop = start + 1 + torch.randint(length, (batch, 1), device=device)
    return (torch.rand(batch, 1, device=device) < share) & (time >= start) & (time < stop)


def random_gaps(batch: int, length: int, share: float, device: torch.device) -> Bool[Tensor, "B T"]:
    """True on all of one half of the affected rows, and on a random span of the other half.

    `share` is the expected share of affected rows.
    """
    whole = torch.rand(batch, 1, device=device) < share / 2
    return whole | random_spans(batch, length, share / 2, device)


def hide_gaps(values: Float[Tensor, "B T D"], share: float) -> Float[Tensor, "B T D"]:
    """The values with NaN in `random_gaps`."""
    batch, length = values.shape[:2]
    return values.masked_fill(random_gaps(batch, length, share, values.device)[..., None], torch.nan)
