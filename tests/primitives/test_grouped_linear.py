"""Grouped linear layers compared with one product per row, for few and many rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aime.primitives.grouped_linear import MANY, MANY_IN_BF16, grouped_linear

GROUPS, INPUTS, OUTPUTS = 5, 7, 3


def layer(rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs, groups of which one has no row, weights and biases, in float64."""
    torch.manual_seed(rows)
    group = torch.randint(GROUPS - 1, (rows,))
    inputs, weights, biases = (
        torch.randn(rows, INPUTS),
        torch.randn(GROUPS, OUTPUTS, INPUTS),
        torch.randn(GROUPS, OUTPUTS),
    )
    return inputs.double(), group, weights.double(), biases.double()


@pytest.mark.parametrize("rows", [1, 6, MANY - 1, MANY, 3 * MANY])
def test_is_each_row_by_itself(rows: int) -> None:
    inputs, group, weights, biases = layer(rows)
    alone = torch.stack([weights[g] @ x + biases[g] for x, g in zip(inputs, group.tolist(), strict=True)])
    torch.testing.assert_close(grouped_linear(inputs, group, weights, biases), alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [MANY_IN_BF16 - 1, MANY_IN_BF16])
def test_is_each_row_by_itself_in_half_precision(rows: int) -> None:
    inputs, group, weights, biases = layer(rows)
    halves = [each.bfloat16() for each in (inputs, weights, biases)]
    expected = grouped_linear(halves[0].double(), group, *(each.double() for each in halves[1:]))
    found = grouped_linear(halves[0], group, *halves[1:])
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, rtol=2**-7, atol=2**-7)


@pytest.mark.parametrize("rows", [6, MANY])
def test_has_a_gradient_to_everything(rows: int) -> None:
    inputs, group, weights, biases = layer(rows)
    for each in (inputs, weights, biases):
        each.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *given: grouped_linear(given[0], group, *given[1:]), (inputs, weights, biases)
    )
