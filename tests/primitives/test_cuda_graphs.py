"""CUDA graphs give the function's results, including random numbers and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from aime.primitives.cuda_graphs import WARM_UP, GraphedFunction

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

CUDA = torch.device("cuda")


def test_random_numbers_are_those_of_the_work_itself() -> None:
    def work(kind: str, inputs: tuple[Tensor]) -> Tensor:
        return inputs[0] + torch.randn_like(inputs[0])

    graphed = GraphedFunction[str, tuple[Tensor], Tensor](work, CUDA)
    inputs = [(torch.randn(5),) for _ in range(WARM_UP + 4)]
    torch.manual_seed(0)
    found = [graphed("only", each).clone() for each in inputs]
    torch.manual_seed(0)
    expected = [work("only", (each[0].to(CUDA),)) for each in inputs]
    torch.testing.assert_close(found, expected)


def test_kinds_and_shapes_have_recordings_of_their_own() -> None:
    calls = []

    def work(kind: float, inputs: tuple[Tensor]) -> Tensor:
        calls.append(kind)
        return kind * inputs[0].sum()

    graphed = GraphedFunction[float, tuple[Tensor], Tensor](work, CUDA)
    for number in range(2 * WARM_UP):
        for kind in (1.0, 2.0):
            for size in (3, 4):
                given = torch.full((size,), float(number))
                assert float(graphed(kind, (given,))) == kind * size * number
    assert len(calls) == 4 * (WARM_UP + 1)


def test_each_kind_brings_its_gradients() -> None:
    weights = [nn.Parameter(torch.ones(2, device=CUDA)) for _ in range(2)]

    def work(kind: int, inputs: tuple[Tensor]) -> Tensor:
        for weight in weights:
            weight.grad = None
        loss = (weights[kind] * inputs[0]).sum()
        loss.backward()
        return loss.detach()

    graphed = GraphedFunction[int, tuple[Tensor], Tensor](work, CUDA, weights)
    for number in range(2 * WARM_UP):
        for kind in (0, 1):
            given = torch.full((2,), float(number + kind))
            graphed(kind, (given,))
            assert weights[1 - kind].grad is None
            gradient = weights[kind].grad
            assert gradient is not None
            torch.testing.assert_close(gradient, given.to(CUDA))
