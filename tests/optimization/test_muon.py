"""Muon: orthogonalized momentum, compared with singular values in float64 and torch's Muon."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from aime.optimization import Muon
from aime.optimization.muon import orthogonalized

sides = st.integers(1, 12)


@given(rows=sides, columns=sides, seed=st.integers(0, 2**31), scale=st.sampled_from([1e-6, 1.0, 1e4]))
def test_singular_vectors_stay_and_their_values_come_near_one(rows: int, columns: int, seed: int, scale: float) -> None:
    torch.manual_seed(seed)
    matrices = scale * torch.randn(2, rows, columns)
    left, values, right = torch.linalg.svd(matrices.double(), full_matrices=False)
    turned = left.mT @ orthogonalized(matrices).double() @ right.mT
    found = turned.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(turned, found.diag_embed(), atol=2e-2, rtol=0)
    large = values > 0.02 * torch.linalg.vector_norm(values, dim=1, keepdim=True)
    assert ((found > 0.6) & (found < 1.3))[large].all()


def test_a_matrix_of_zeros_stays_and_disturbs_no_other() -> None:
    torch.manual_seed(0)
    one = torch.randn(1, 3, 5)
    both = orthogonalized(torch.cat([torch.zeros(1, 3, 5), one]))
    assert torch.equal(both[0], torch.zeros(3, 5))
    torch.testing.assert_close(both[1:], orthogonalized(one))


def descend(weight: Tensor, optimizer: torch.optim.Optimizer, steps: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
def test_steps_are_those_of_torch(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = (nn.Parameter(start.clone()) for _ in range(2))
    found = descend(ours, Muon([ours], lr=0.1, weight_decay=0.2, momentum=0.9))
    torchs = torch.optim.Muon([theirs], 0.1, weight_decay=0.2, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    expected = descend(theirs, torchs)
    # torch iterates in bfloat16
    torch.testing.assert_close(found, expected, atol=0.03 * (expected - start).abs().max().item(), rtol=0)


def test_a_convolution_moves_as_the_matrix_that_it_is() -> None:
    torch.manual_seed(0)
    start = torch.randn(4, 3, 2, 2)
    layered = nn.Parameter(start.clone(memory_format=torch.channels_last))
    flat = nn.Parameter(start.flatten(1).clone())
    gradient = torch.randn(start.shape)
    layered.grad, flat.grad = gradient.clone(memory_format=torch.channels_last), gradient.flatten(1)
    for weight in (layered, flat):
        Muon([weight], lr=0.1).step()
    torch.testing.assert_close(layered.detach().flatten(1), flat.detach())
    assert layered.is_contiguous(memory_format=torch.channels_last)


def test_weights_of_one_shape_do_not_know_of_each_other() -> None:
    torch.manual_seed(0)
    starts = torch.randn(3, 5, 4)
    together, alone = ([nn.Parameter(each.clone()) for each in starts] for _ in range(2))
    gradients = torch.randn(3, 5, 4)
    for weights in (together, alone):
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
    together[1].grad = None
    Muon(together, lr=0.1).step()
    for weight in (alone[0], alone[2]):
        Muon([weight], lr=0.1).step()
    torch.testing.assert_close(together, alone)
    assert torch.equal(together[1], starts[1])


def test_a_step_that_is_skipped_changes_nothing() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(4, 6))
    optimizer = Muon([weight], lr=0.1, weight_decay=0.5)
    descend(weight, optimizer)
    before = weight.detach().clone(), optimizer.state[weight]["momentum"].clone()
    optimizer.found_inf = torch.ones(())
    weight.grad = torch.full_like(weight, torch.nan)
    optimizer.step()
    assert torch.equal(weight, before[0]) and torch.equal(optimizer.state[weight]["momentum"], before[1])
    optimizer.found_inf.zero_()
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    assert not torch.equal(weight, before[0])
