"""A linear layer with separate weights per group of rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

MANY, MANY_IN_BF16 = 48, 384
"""Number of rows on a CPU from which sorting by group is faster, in fp32 and in bf16."""


def grouped_linear(
    inputs: Float[Tensor, "N inputs"],
    group: Int[Tensor, " N"],
    weights: Float[Tensor, "G outputs inputs"],
    biases: Float[Tensor, "G outputs"],
) -> Float[Tensor, "N outputs"]:
    """W_g x + b_g of each row x, where g in 0..G-1 is its group.

    Rows are sorted by group and multiplied group by group. Few rows, and rows on a GPU, are multiplied with all groups'
    weights instead: on a GPU, group sizes would need host synchronisation.
    """
    many = MANY_IN_BF16 if weights.dtype == torch.bfloat16 else MANY
    if inputs.is_cuda or len(inputs) < many:
        every = F.linear(inputs, weights.flatten(0, 1), biases.flatten()).unflatten(-1, biases.shape)
        return every[torch.arange(len(group), device=group.device), group]
    order = group.argsort()
    sizes = group.bincount(minlength=len(weights)).tolist()
    blocks = zip(inputs.index_select(0, order).split(sizes), weights, biases, strict=True)
    sorted_rows = torch.cat([F.linear(rows, weight, bias) for rows, weight, bias in blocks if len(rows)])
    return torch.zeros_like(sorted_rows).index_copy(0, order, sorted_rows)
