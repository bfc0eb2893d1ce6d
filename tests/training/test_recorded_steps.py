"""Training steps can be captured as CUDA graphs: state stays at its address, and a GPU gives the same numbers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tests.training.noise import noise_learning, take
from torch import Tensor

from aime.optimization import RGB
from aime.primitives.hardware import Hardware
from aime.training.joint import JointLearning


def carried(joint: JointLearning) -> Iterator[tuple[str, Tensor]]:
    """Everything that a step changes and the next one reads."""
    modules = {
        "model": joint.model,
        "replay": joint.replay,
        "nonfinite": joint.nonfinite,
        "average": joint.average.best,
    }
    assert joint.adversary is not None and isinstance(joint.balancer, RGB)
    for owner, module in (modules | {"adversary": joint.adversary}).items():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            yield f"{owner}.{name}", tensor
    for owner, optimizer in zip(
        ("adamw", "muon", "critic"), (*joint.optimizers, joint.adversary.optimizer), strict=True
    ):
        for number, state in enumerate(optimizer.state.values()):
            yield from ((f"{owner}.{number}.{key}", value) for key, value in state.items())
        yield f"{owner}.found_inf", getattr(optimizer, "found_inf")  # noqa: B009
    yield "consensus", joint.balancer._consensus
    yield from ((f"angle.{task}", angle) for task, angle in joint.balancer._angles.items())


def test_a_step_leaves_everything_where_it_was() -> None:
    torch.manual_seed(0)
    joint = noise_learning(Hardware(torch.device("cpu"), torch.float32))
    # the first ones make what is kept from step to step
    for step in range(80, 84):
        take(joint, step)
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in carried(joint)}
    for step in range(84, 86):
        take(joint, step)
    after = dict(carried(joint))
    assert after.keys() == before.keys()
    assert {name for name, tensor in after.items() if tensor.data_ptr() != before[name][0]} == set()
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name][1])}
    assert {
        "consensus",
        "angle.adversarial",
        "replay.means",
        "replay.taken",
        "model.tokenizer.quantizer.codebook",
    } <= moved


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_recorded_steps_are_the_steps_themselves() -> None:
    # from before the discriminators are heard to after, so that all kinds of steps are recorded
    steps = [*range(8), *range(20, 50)]
    device = Hardware(torch.device("cuda"), torch.float32)

    def losses(cuda_graphs: bool) -> list[dict[str, float]]:
        torch.manual_seed(0)
        joint = noise_learning(device, cuda_graphs)
        figures = []
        for step in steps:
            result = take(joint, step)
            named = [pair for task in result.losses for pair in task.named()]
            figures.append({name: float(value) for name, value in named} | {"norm": float(result.gradient_norm)})
        assert joint.nonfinite.skipped == 0
        return figures

    recorded, plain = losses(True), losses(False)
    for mine, other in zip(recorded, plain, strict=True):
        assert mine == pytest.approx(other, rel=0.02, abs=0.02)
