"""Means over frames without padding."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aime.primitives.ranks import total_over_ranks


def masked_mean(values: Float[Tensor, "B T"], valid: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Mean over the valid frames of all ranks; 0 if there is none.

    A mean of the ranks' means would weight frames unequally, since ranks differ in padding.
    """
    # not a product: 0 times NaN on padding is NaN
    kept = torch.where(valid, values, 0)
    total, count = total_over_ranks(torch.stack([kept.sum(), valid.sum().to(values.dtype)])).unbind()
    return total / count.clamp_min(1)
