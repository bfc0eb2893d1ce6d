"""Slot attention compared with a plain loop, and properties of its slots."""

from __future__ import annotations

import torch
from torch import Tensor

from aime.primitives.slot_attention import FLOOR, SlotAttention

N, M, S, D, WIDTH = 2, 7, 3, 5, 4


def attention(rounds: int) -> SlotAttention:
    torch.manual_seed(0)
    return SlotAttention(S, WIDTH, D, rounds).double()


def by_hand(module: SlotAttention, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Algorithm 1 of Locatello et al. 2020, one set, one slot and one input at a time."""
    all_slots, all_maps = [], []
    for one in inputs:
        normed = module.norm_inputs(one)
        key, value = (normed @ module.key_value.weight.T).chunk(2, dim=-1)
        slots: Tensor = module.initial
        for _ in range(module.rounds):
            query = module.norm_slots(slots) @ module.query.weight.T
            maps = torch.stack([((query @ key[m]) / WIDTH**0.5).softmax(0) for m in range(M)], dim=1)
            updated = []
            for s in range(S):
                shares = (maps[s] + FLOOR) / (maps[s] + FLOOR).sum()
                slot = module.update(sum(shares[m] * value[m] for m in range(M))[None], slots[s][None])[0]
                updated.append(slot + module.refine(slot))
            slots = torch.stack(updated)
        all_slots.append(slots)
        all_maps.append(maps)
    return torch.stack(all_slots), torch.stack(all_maps)


def test_rounds_are_those_of_the_algorithm() -> None:
    module, inputs = attention(rounds=3), torch.randn(N, M, D, dtype=torch.float64)
    slots, maps = by_hand(module, inputs)
    found = module(inputs)
    torch.testing.assert_close(found.vectors, slots, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.maps, maps, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.maps.sum(1), torch.ones(N, M, dtype=torch.float64))


def test_the_gradient_passes_the_last_round_only() -> None:
    """With the earlier rounds' result as a given start, the gradients are the same."""
    inputs = torch.randn(N, M, D, dtype=torch.float64)
    module = attention(rounds=3)
    module(inputs).vectors.square().sum().backward()
    before = attention(rounds=2)(inputs).vectors.detach()
    last = attention(rounds=1)
    keys, values = last.key_value(last.norm_inputs(inputs)).chunk(2, dim=-1)
    start = before.requires_grad_(True)
    last._round(start, keys, values)[0].square().sum().backward()
    for name, weight in last.named_parameters():
        if name != "initial":
            torch.testing.assert_close(dict(module.named_parameters())[name].grad, weight.grad)
    assert start.grad is not None
    torch.testing.assert_close(module.initial.grad, start.grad.sum(0))  # straight through


def test_slots_start_distinct_and_do_not_depend_on_the_order_of_inputs() -> None:
    module, inputs = attention(rounds=3), torch.randn(N, M, D, dtype=torch.float64)
    shuffled = torch.randperm(M)
    torch.testing.assert_close(module(inputs).vectors, module(inputs[:, shuffled]).vectors)
    assert torch.pdist(module.initial).min() > 1
