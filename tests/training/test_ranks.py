"""Two ranks take the same steps as one process with both batches; the command runs, stops and resumes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.models import SIZE, small_config
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn

from aime.cli.main import main
from aime.data import Clips
from aime.dynamics.prior import PriorConfig
from aime.objectives import elbo, passes
from aime.objectives.adversarial import AdversaryConfig
from aime.objectives.weights import OvershootConfig
from aime.perception.perceiver import PerceiverConfig
from aime.primitives import quantize
from aime.primitives.hardware import Hardware
from aime.runs.checkpoint_files import read_progress
from aime.runs.processes import join
from aime.training.config import TrainConfig
from aime.training.joint import JointLearning
from aime.training.optimizers import OptimizerConfig
from aime.training.replay import ReplayConfig
from aime.world_model.model import AIME

BATCH, LENGTH, STEPS = 4, 6, 3
BALANCERS = ("sum", "rgb")


class NoiseBySample:
    """Random numbers that belong to a half of the batch, in whichever process it is computed."""

    def __init__(self, patch: pytest.MonkeyPatch, halves: tuple[int, ...]) -> None:
        self.halves, self.draws = halves, 0
        self.fills = {name: getattr(Tensor, name) for name in ("uniform_", "normal_", "exponential_")}
        for name in ("randn_like", "rand", "randint"):
            patch.setattr(torch, name, getattr(self, name))
        patch.setattr(quantize, "draw_with_replacement", self.vectors)
        patch.setattr(Tensor, "exponential_", lambda tensor: tensor.copy_(self.rows("exponential_", *tensor.shape)))

    def draw(self, fill: str, *shape: int) -> list[Tensor]:
        """The numbers of each half."""
        self.draws += 1
        generators = [torch.Generator().manual_seed(2 * self.draws + half) for half in self.halves]
        return [self.fills[fill](torch.empty(shape, dtype=torch.float64), generator=each) for each in generators]

    def rows(self, fill: str, rows: int, *shape: int) -> Tensor:
        return torch.cat(self.draw(fill, rows // len(self.halves), *shape))

    def randn_like(self, like: Tensor) -> Tensor:
        return self.rows("normal_", *like.shape)

    def rand(self, *shape: int | torch.Size, device: object = None) -> Tensor:
        sizes = [size for each in shape for size in (each if isinstance(each, torch.Size) else (each,))]
        # a single number is for the whole batch
        return torch.full((1,), 0.3, dtype=torch.float64) if sizes == [1] else self.rows("uniform_", *sizes)

    def randint(self, high: int, shape: tuple[int, ...], device: object = None) -> Tensor:
        return (high * self.rows("uniform_", *shape)).long()

    def vectors(self, counted: Tensor, draws: int) -> Tensor:
        """Vectors for dead codes: the even codes draw from the first half, the odd ones from the second."""
        clips = BATCH // 2 * len(self.halves)
        # vectors are time-major
        half = torch.arange(len(counted)) // (SIZE // 8) ** 2 % clips // (BATCH // 2)
        drawn = []
        for number, each in enumerate(self.draw("uniform_", draws)):
            own = (counted & (half == number)).nonzero()[:, 0]
            drawn.append(own[(each * len(own)).long()])
        return torch.where(torch.arange(draws) % 2 == 0, drawn[0], drawn[-1])


def training(halves: int, balancer: str) -> TrainConfig:
    """A run of every part and task, on one half of each batch or on both."""
    model = small_config()
    model = replace(model, attention=replace(model.attention, kind="schema"))
    return TrainConfig(
        data="none",
        out=Path("none"),
        model=model,
        steps=STEPS,
        batch=BATCH * halves // 2,
        length=LENGTH,
        balancer=balancer,
        overshoot=OvershootConfig(steps=3),
        replay=ReplayConfig(clips=0),
    )


def batch(step: int, halves: tuple[int, ...]) -> Clips:
    """Clips whose second half has more padding than the first."""
    generator = torch.Generator().manual_seed(step)
    frames = torch.rand(BATCH, LENGTH, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)
    actions = torch.rand(BATCH, LENGTH, 2, generator=generator) * 2 - 1
    valid = torch.arange(LENGTH) < torch.tensor([6, 5, 3, 2])[:, None]
    nothing = torch.zeros(BATCH, LENGTH)
    clips = Clips(frames, actions, nothing, nothing.bool(), valid, valid, valid, None)
    rows = slice(halves[0] * BATCH // 2, (halves[-1] + 1) * BATCH // 2)
    return clips._replace(**{name: field[rows] for name, field in clips._asdict().items() if field is not None})


def figures(halves: tuple[int, ...], balancer: str) -> list[dict[str, Tensor]]:
    """Gradients, losses and buffers of a few steps on one half of each batch or on both."""
    config = training(len(halves), balancer)
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PerceiverConfig, "dropout", 0.0)
        patch.setattr(PriorConfig, "dropout", 0.0)
        patch.setattr(OptimizerConfig, "warmup", 1)
        patch.setattr(OptimizerConfig, "clip", 1e9)
        for name, value in {"n_critic": 1, "warmup": 0.0, "ramp": 0.0, "frames": 2 * BATCH * LENGTH}.items():
            patch.setattr(AdversaryConfig, name, value)
        # whatever is drawn is all there is: of a whole batch other frames would be drawn than of its halves
        patch.setattr(OvershootConfig, "frames", 2 * BATCH * LENGTH)
        return _figures(config, halves, patch)


def _figures(config: TrainConfig, halves: tuple[int, ...], patch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    joint = JointLearning(config, AIME(config.model).double(), Hardware(torch.device("cpu"), torch.float32))
    joint.replay.double()
    assert joint.adversary is not None
    joint.adversary.double()
    found = []
    batches = [batch(step, halves) for step in range(STEPS)]
    NoiseBySample(patch, halves)
    patch.setattr(elbo, "TEXTURE_FRAMES", BATCH * LENGTH)
    patch.setattr(passes, "REDRAWN_SHARE", 1.0)
    patch.setattr(Tensor, "float", lambda self: self.to(torch.float32 if self.dtype == torch.bool else torch.float64))
    for step, clips in enumerate(batches):
        result = joint.step([clips], step, step / STEPS)
        critic = () if result.critic is None else (result.critic,)
        found.append(
            {
                **{f"gradient of {name}": each.grad for name, each in joint.model.named_parameters()},
                **{f"critic's of {name}": each.grad for name, each in joint.adversary.named_parameters()},
                **{name: each.clone() for name, each in joint.model.named_buffers()},
                **{name: each.clone() for name, each in joint.adversary.named_buffers()},
                **{name: value for task in (*result.losses, *critic) for name, value in task.named()},
            }
        )
    return [{name: value for name, value in each.items() if value is not None} for each in found]


def run_rank(rank: int, directory: str) -> None:
    torch.set_num_threads(1)
    join("gloo", distributed.FileStore(f"{directory}/meet", 2), rank, 2)  # type: ignore[attr-defined]
    torch.save({balancer: figures((rank,), balancer) for balancer in BALANCERS}, f"{directory}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_ranks_are_one_with_both_batches(tmp_path: Path) -> None:
    ranks = spawn(run_rank, (str(tmp_path),), nprocs=2, join=False)
    whole = {balancer: figures((0, 1), balancer) for balancer in BALANCERS}
    assert ranks is not None
    while not ranks.join():
        pass
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    needed = {"gradient of decoder.head.weight", "critic's of discriminators.image.tower.head.conv.bias"}
    needed |= {"tokenizer.quantizer.codebook", "tokenizer.quantizer.usage", "decoder.variance", "elbo/entropy"}
    assert needed <= whole["rgb"][0].keys()
    for balancer in BALANCERS:
        for mine, theirs, expected in zip(first[balancer], second[balancer], whole[balancer], strict=True):
            assert mine.keys() == theirs.keys() == expected.keys()
            assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
            # some gradients are zero but for rounding: biases before a softmax
            far = [name for name, value in expected.items() if (mine[name] - value).abs().max() > tolerance(value)]
            assert far == []


def tolerance(value: Tensor) -> Tensor:
    return (1e-6 * value.abs().max()).clamp_min(1e-12)


def aime(arguments: str, directory: Path, machines: int = 1) -> tuple[set[int], str, str]:
    """The command under torchrun in two processes, on one machine or as on two: exit statuses, output, errors."""
    launch = ["--nnodes", str(machines), "--nproc-per-node", str(2 // machines)]
    if machines > 1:
        with socket.create_server(("localhost", 0)) as server:
            launch += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{server.getsockname()[1]}"]
    command = [sys.executable, "-m", "torch.distributed.run", *launch, "-m", "aime", *arguments.split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    launched = [
        subprocess.Popen(command, cwd=directory, env=environment, stdout=pipe, stderr=pipe, text=True)
        for _ in range(machines)
    ]
    try:
        said = [each.communicate(timeout=600) for each in launched]
    finally:
        for each in launched:
            each.terminate()  # torchrun ends what it has started
    outputs, errors = ("".join(texts) for texts in zip(*said, strict=True))
    return {each.returncode for each in launched}, outputs, errors


def test_the_command_trains_on_two_machines_and_goes_on_in_one_process(tmp_path: Path) -> None:
    small = "--batch 1 --length 4 --overshoot.steps 2 --log-every 1 --device cpu --no-pictures"
    train = f"train tiny --data bundled:cartpole --steps 2 --out run {small}"
    statuses, outputs, errors = aime(train, tmp_path, machines=2)
    assert statuses == {0}, errors
    assert outputs.count("run: 2 steps, 16 frames") == 1
    assert outputs.count("show it with") == 1
    run = tmp_path / "run"
    assert [step_of(line) for line in (run / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    assert read_progress(run)[:2] == (2, 16)
    assert main(["train", "--resume", "--out", str(run), "--steps", "3"]) == 0
    assert read_progress(run)[:2] == (3, 20)


def step_of(line: str) -> int:
    return json.loads(line)["step"]


def test_an_error_of_the_first_process_ends_both_with_one_message(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").touch()
    statuses, _, errors = aime("train tiny --data bundled:cartpole --steps 2 --out run", tmp_path)
    assert 0 not in statuses
    assert errors.count("aime train: run: exists and is not empty") == 1
    assert errors.count("Traceback") <= 1, "torchrun's own"
