"""Random places among those that count, and random spans of time, without waiting for the device."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def draw_with_replacement(counted: Bool[Tensor, " N"], draws: int) -> Int[Tensor, " draws"]:
    """Indices of places that count, each alike; any index where none counts."""
    order = counted.cumsum(0)
    # a product with a large count may round up to it
    number = (torch.rand(draws, device=counted.device) * order[-1]).long().minimum(order[-1] - 1)
    return torch.searchsorted(order, number + 1)


def draw_counted_first(counted: Bool[Tensor, " N"], draws: int) -> Int[Tensor, " draws"]:
    """`draws` different indices, N at most, in random order, those of places that do not count behind all others."""
    keys = torch.rand(counted.shape, device=counted.device).masked_fill(~counted, 2.0)
    return keys.argsort()[:draws]


def random_spans(batch: int, length: int, share: float, device: torch.device) -> Bool[Tensor, "B T"]:
    """True on one random span in a `share` of the rows; spans start anywhere and last 1..length frames."""
    time = torch.arange(length, device=device)
    start = torch.randint(length, (batch, 1), device=device)
    stop = start + 1 + torch.randint(length, (batch, 1), device=device)
    return (torch.rand(batch, 1, device=device) < share) & (time >= start) & (time < stop)


def random_gaps(batch: int, length: int, share: float, device: torch.device) -> Bool[Tensor, "B T"]:
    """True throughout a half of a `share` of the rows, and on a random span of the other half."""
    throughout = torch.rand(batch, 1, device=device) < share / 2
    return throughout | random_spans(batch, length, share / 2, device)
