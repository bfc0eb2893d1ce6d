"""Means over frames that leave out padding."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aime.primitives.ranks import total_over_ranks


def masked_mean(values: Float[Tensor, "B T"], valid: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Mean over the frames that are not padding, of the batches of all ranks; 0 where there is none.

    Ranks differ in how much padding they have, so that a mean of their means would count some frames for more.
    """
    # a choice and not a product: 0 times a NaN on padding is NaN
    kept = torch.where(valid, values, 0)
    total, count = total_over_ranks(torch.stack([kept.sum(), valid.sum().to(values.dtype)])).unbind()
    return total / count.clamp_min(1)
