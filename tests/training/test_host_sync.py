"""A training step does not synchronise with the host."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from tests.training.noise import noise_learning, take
from torch.utils._python_dispatch import TorchDispatchMode

from aime.primitives.hardware import Hardware
from aime.training.joint import JointLearning

READS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.unique_dim.default,
    torch.ops.aten._unique2.default,
}
"""Operations whose result, or its shape, the host has to know before it can go on."""


class Reads(TorchDispatchMode):
    """Counts the operations that make the host wait, masks as indices among them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        indices = args[1] if func.overloadpacket is torch.ops.aten.index else ()
        by_mask = any(index is not None and index.dtype == torch.bool for index in indices)
        if func in READS or by_mask:
            self.found[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def joint() -> JointLearning:
    return noise_learning(Hardware(torch.device("cpu"), torch.float32))


def test_a_step_reads_nothing_back(joint: JointLearning) -> None:
    assert joint.adversary is not None
    # the first ones make what is kept from step to step
    for step in (80, 81):
        take(joint, step)
    with Reads() as reads:
        results = [take(joint, step) for step in (82, 83)]
    assert any(result.critic is not None for result in results)
    assert {task.task for task in results[0].losses} == {"elbo", "perceiver", "predictive", "adversarial"}
    assert not reads.found


def test_a_read_would_be_found() -> None:
    with Reads() as reads:
        values = torch.rand(5)
        values[values > 2]
        float(values.sum())
        bool(values.any())
    assert sum(reads.found.values()) >= 3
