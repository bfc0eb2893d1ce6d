"""Slot attention: inputs compete for a few slots, in rounds that a gradient passes only once."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import einsum, repeat
from jaxtyping import Float
from torch import Tensor, nn

FLOOR = 1e-8
"""Added to the attention before it is normalised over the inputs, so that an empty slot divides by no zero."""


class Slots(NamedTuple):
    """S slots and which inputs each of them holds."""

    vectors: Float[Tensor, "N S width"]
    maps: Float[Tensor, "N S M"]
    """The share of each input that each slot takes: sums to 1 over the slots."""


class SlotAttention(nn.Module):
    """Slots that start from learned, distinct vectors and are refined in rounds of competitive attention.

    Each round, every input divides its attention among the slots by a softmax over the slots; a slot then reads the
    mean of the inputs weighted by its share, through a GRU and a residual perceptron. All rounds but the last run
    without gradient and the initial slots are fed straight through to the last one: the gradient of the fixed point to
    first order, which keeps training steady.

    References: Locatello et al. 2020, arXiv 2006.15055, algorithm 1; Chang et al. 2022, arXiv 2207.00787, section 4;
    learned initial slots: Jia et al. 2023, arXiv 2210.08990.
    """

    def __init__(self, slots: int, width: int, inputs: int, rounds: int = 3) -> None:
        super().__init__()
        self.rounds = rounds
        self.initial = nn.Parameter(nn.init.orthogonal_(torch.empty(slots, width)) * width**0.5)
        self.norm_inputs = nn.LayerNorm(inputs)
        self.key_value = nn.Linear(inputs, 2 * width, bias=False)
        self.norm_slots = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.update = nn.GRUCell(width, width)
        self.refine = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )

    def forward(self, inputs: Float[Tensor, "N M inputs"]) -> Slots:
        """Slots of `[N,M,inputs]`, each of the N sets by itself."""
        keys, values = self.key_value(self.norm_inputs(inputs)).chunk(2, dim=-1)
        start = repeat(self.initial, "s d -> n s d", n=inputs.shape[0])
        slots: Tensor = start
        with torch.no_grad():
            for _ in range(self.rounds - 1):
                slots, _ = self._round(slots, keys, values)
        return Slots(*self._round(slots.detach() + start - start.detach(), keys, values))

    def _round(
        self, slots: Float[Tensor, "N S width"], keys: Float[Tensor, "N M width"], values: Float[Tensor, "N M width"]
    ) -> tuple[Float[Tensor, "N S width"], Float[Tensor, "N S M"]]:
        queries = self.query(self.norm_slots(slots)) * slots.shape[-1] ** -0.5
        maps = F.softmax(einsum(queries, keys, "n s d, n m d -> n s m"), dim=1)
        weights = (maps + FLOOR) / (maps + FLOOR).sum(-1, keepdim=True)
        read = einsum(weights, values, "n s m, n m d -> n s d")
        slots = self.update(read.flatten(0, 1), slots.flatten(0, 1)).unflatten(0, slots.shape[:2])
        return slots + self.refine(slots), maps
