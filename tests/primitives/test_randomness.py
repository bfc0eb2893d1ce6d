"""Saving and restoring random states."""

from __future__ import annotations

import pytest
import torch

from aime.primitives.randomness import preserved_random_state

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("name", DEVICES)
def test_what_is_drawn_apart_depends_on_its_seed_and_changes_nothing_after(name: str) -> None:
    device = torch.device(name)
    torch.manual_seed(1)
    undisturbed = torch.randn(3, device=device), torch.randn(3)
    torch.manual_seed(1)
    with preserved_random_state(device, 7):
        first = torch.randn(3, device=device)
    with preserved_random_state(device, 7):
        second = torch.randn(3, device=device)
    with preserved_random_state(device):
        torch.randn(3, device=device)
    assert torch.equal(first, second)
    assert torch.equal(torch.randn(3, device=device), undisturbed[0])
    assert torch.equal(torch.randn(3), undisturbed[1])
