"""A linear layer of which every row takes the weights of its own group."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

MANY, MANY_IN_BF16 = 48, 384
"""Rows from which on it pays to sort them, on a CPU: half precision makes products cheap, calls not."""


def grouped_linear(
    inputs: Float[Tensor, "N inputs"],
    group: Int[Tensor, " N"],
    weights: Float[Tensor, "G outputs inputs"],
    biases: Float[Tensor, "G outputs"],
) -> Float[Tensor, "N outputs"]:
    """W_g x + b_g of each row x, g in 0..G-1 its group.

    The rows of a group are multiplied together: a G-th of the products of all rows with all groups. Few rows
    do take those, and so does a GPU, which would have to wait to learn how large the groups are.
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
