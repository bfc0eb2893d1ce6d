"""Steps that a GPU may record: state that stays in its place and, where there is a GPU, the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from tests.training.noise import noise, noise_run
from torch import Tensor

from aime.optimization import RGB
from aime.training.checkpoint import Progress
from aime.training.hardware import Hardware
from aime.training.trainer import Trainer
from aime.world_model.model import AIME


def carried(trainer: Trainer) -> Iterator[tuple[str, Tensor]]:
    """Everything that a step changes and the next one reads."""
    modules = {"model": trainer.model, "replay": trainer.replay, "guard": trainer.guard, "average": trainer.averaged}
    assert trainer.adversary is not None and isinstance(trainer.balancer, RGB)
    for owner, module in (modules | {"adversary": trainer.adversary}).items():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            yield f"{owner}.{name}", tensor
    for owner, optimizer in zip(
        ("adamw", "muon", "critic"), (*trainer.optimizers, trainer.adversary.optimizer), strict=True
    ):
        for number, state in enumerate(optimizer.state.values()):
            yield from ((f"{owner}.{number}.{key}", value) for key, value in state.items())
        yield f"{owner}.found_inf", getattr(optimizer, "found_inf")  # noqa: B009
    yield "consensus", trainer.balancer._consensus
    yield from ((f"angle.{task}", angle) for task, angle in trainer.balancer._angles.items())


def test_a_step_leaves_everything_where_it_was() -> None:
    torch.manual_seed(0)
    trainer = Trainer(noise_run(), AIME(noise_run().model), Hardware(torch.device("cpu"), torch.float32))
    # the first ones make what is kept from step to step
    for step in range(80, 84):
        trainer.step([noise()], Progress(step))
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in carried(trainer)}
    for step in range(84, 86):
        trainer.step([noise()], Progress(step))
    after = dict(carried(trainer))
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
        trainer = Trainer(replace(noise_run(), cuda_graphs=cuda_graphs), AIME(noise_run().model), device)
        clips = [noise() for _ in steps]
        figures = []
        for step, batch in zip(steps, clips, strict=True):
            result = trainer.step([batch], Progress(step))
            named = [pair for task in result.losses for pair in task.named()]
            figures.append({name: float(value) for name, value in named} | {"norm": float(result.gradient_norm)})
        assert trainer.guard.skipped == 0
        return figures

    recorded, plain = losses(True), losses(False)
    for mine, other in zip(recorded, plain, strict=True):
        assert mine == pytest.approx(other, rel=0.02, abs=0.02)
