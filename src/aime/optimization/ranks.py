"""Averages over the ranks of a data-parallel training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, distributed


def average_over_ranks(tensors: Sequence[Tensor]) -> None:
    """Replace tensors of any shapes by their means over the ranks, in place, by one collective.

    Does nothing unless `torch.distributed` is initialised. Every rank must bring the same shapes in the same order.
    """
    if not tensors or not distributed.is_available() or not distributed.is_initialized():
        return
    if len(tensors) == 1 and tensors[0].is_contiguous():
        distributed.all_reduce(tensors[0])
        tensors[0].div_(distributed.get_world_size())
        return
    packed = torch.cat([each.flatten() for each in tensors])
    average_over_ranks([packed])
    for each, mean in zip(tensors, packed.split([each.numel() for each in tensors]), strict=True):
        each.copy_(mean.view(each.shape))
