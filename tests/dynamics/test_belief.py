"""The LSTM: fused call, steps, and the cells that the fused call does not return."""

from __future__ import annotations

import pytest
import torch

from aime.dynamics.belief import LSTMBelief


@pytest.mark.parametrize("length", [1, 2, 7, 16])
def test_fused_call_and_scan_give_the_states_of_single_steps(length: int) -> None:
    torch.manual_seed(0)
    dynamics = LSTMBelief(2, 2, 1, 8).double()
    torch.nn.init.normal_(dynamics.initial_belief)
    torch.nn.init.normal_(dynamics.initial_cell)
    inputs = [torch.randn(3, length, width, dtype=torch.float64) for width in (2, 2, 2, 1)]
    beliefs = dynamics(*inputs)
    cells = dynamics.cells(*[*inputs, beliefs])
    belief, cell = dynamics.initial(3)
    for t in range(length):
        torch.testing.assert_close(beliefs[:, t], belief, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(cells[:, t], cell, rtol=1e-10, atol=1e-10)
        latent, step, context, action = (each[:, t] for each in inputs)
        belief, cell = dynamics.step(latent, step, context, action, belief, cell)


def test_scan_has_the_gradient_of_the_loop() -> None:
    torch.manual_seed(0)
    dynamics = LSTMBelief(1, 1, 1, 4).double()
    inputs = [torch.randn(2, 6, 1, dtype=torch.float64) for _ in range(4)]
    cells = dynamics.cells(*[*inputs, dynamics(*inputs)])
    scanned = torch.autograd.grad(cells.square().sum(), list(dynamics.parameters()))
    (belief, cell), total = dynamics.initial(2), torch.zeros((), dtype=torch.float64)
    for t in range(6):
        total = total + cell.square().sum()
        latent, step, context, action = (each[:, t] for each in inputs)
        belief, cell = dynamics.step(latent, step, context, action, belief, cell)
    looped = torch.autograd.grad(total, list(dynamics.parameters()), allow_unused=True)
    for mine, theirs in zip(scanned, looped, strict=True):
        torch.testing.assert_close(mine, torch.zeros_like(mine) if theirs is None else theirs)


def test_starts_orthogonal_with_an_open_forget_gate() -> None:
    dynamics = LSTMBelief(2, 2, 1, 8)
    for gate in dynamics.lstm.all_weights[0][1].chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(8), rtol=1e-5, atol=1e-5)
    assert dynamics.lstm.all_weights[0][2].tolist() == [0.0] * 8 + [1.0] * 8 + [0.0] * 16


def test_joined_cell_is_the_single_step() -> None:
    torch.manual_seed(0)
    dynamics = LSTMBelief(2, 3, 1, 8).double()
    given = [torch.randn(5, width, dtype=torch.float64) for width in (2, 2, 3, 1, 8, 8)]
    for joined, single in zip(dynamics.joined().step(*given), dynamics.step(*given), strict=True):
        torch.testing.assert_close(joined, single, rtol=1e-12, atol=1e-12)
