"""How the LSTM starts."""

from __future__ import annotations

import torch

from aime.dynamics.recurrences.lstm import LSTM


def test_starts_orthogonal_with_an_open_forget_gate() -> None:
    recurrence = LSTM(7, 8)
    for gate in recurrence.lstm.all_weights[0][1].chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(8), rtol=1e-5, atol=1e-5)
    assert recurrence.lstm.all_weights[0][2].tolist() == [0.0] * 8 + [1.0] * 8 + [0.0] * 16
