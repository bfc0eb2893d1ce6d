"""Slot attention with a first-order gradient through its iterations."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import einsum, repeat
from jaxtyping import Float
from torch import Tensor, nn

FLOOR = 1e-8
"""Added to the attention before normalisation over the inputs, so that an empty slot does not divide by zero."""


class Slots(NamedTuple):
    """S slots and their attention maps."""

    vectors: Float[Tensor, "N S width"]
    maps: Float[Tensor, "N S M"]
    """The share of each input that each slot takes: sums to 1 over the slots."""


class SlotAttention(nn.Module):
    """Refines learned, distinct initial slots in rounds of competitive attention.

    In each round a softmax over the slots distributes every input; a GRU and a residual MLP then update each slot with
    the mean of the inputs weighted by its share. Only the last round has a gradient, with a straight-through gradient
    to the initial slots: the first-order gradient of the fixed point, which stabilises training.

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
        """The slots of N independent sets of inputs `[N,M,inputs]`."""
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
