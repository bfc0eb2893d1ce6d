"""Random places among those that count, without waiting for the device to say how many there are."""

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
