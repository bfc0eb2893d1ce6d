"""Where the time of a training step goes: by pillar, by phase, and against what the machine could do.

    python benchmarks/costs.py --preset tiny

Pillars: the whole step of the complete model over that of each of the ablation's variants, in turns. Phases: the
clock at the seams of one step. Roofline: each hot part forward and backward alone; the floor is the longer of its
operations at the machine's best product of matrices and its bytes at its best copy (Williams et al. 2009, "Roofline").
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from measuring import Figures, Machine, Make, machine_of, parser_with_machine, race, seconds, show, synthetic_clips
from steps import NEAR_THE_END, STEPS, aime_config, aime_learning, aime_step, flops
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import aime.training.joint as training
from aime.benchmarking.ablation.variants import COMPLETE
from aime.primitives.hardware import Hardware
from aime.world_model.model import AIME

PILLARS = ("uniform-attention", "no-context", "single-gaussian", "no-adversary", "sum", "no-overshooting", "spine")
BATCH, LENGTH = 4, 32


def pillars(preset: str, machine: Machine, rounds: int) -> Figures:
    """Milliseconds of the complete step, and how many times longer it takes than without each part."""
    makes: dict[str, Make] = {name: partial(aime_step, preset, name, BATCH, LENGTH) for name in (COMPLETE, *PILLARS)}
    found = race(makes, rounds, machine)
    figures: Figures = {"complete_ms": round(1000 * found.seconds(COMPLETE) / STEPS, 1)}
    for name in PILLARS:
        figures[f"complete_time_over_{name}"] = round(found.ratio(COMPLETE, name), 3)
        figures[f"complete_memory_over_{name}"] = round(found.peak_mb[COMPLETE] / found.peak_mb[name], 3)
    return figures


class Clock:
    """Adds up the seconds spent in functions that it is put around."""

    def __init__(self, hardware: Hardware) -> None:
        self.hardware = hardware
        self.spent: dict[str, float] = {}
        self._inner: list[tuple[object, str, Any]] = []

    def put_around(self, owner: object, attribute: str, phase: str) -> None:
        """Time every call of `owner.attribute` under the name of a phase."""
        inner = getattr(owner, attribute)
        self._inner.append((owner, attribute, inner))

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.hardware.synchronize()
            start = time.perf_counter()
            result = inner(*args, **kwargs)
            self.hardware.synchronize()
            self.spent[phase] = self.spent.get(phase, 0.0) + time.perf_counter() - start
            return result

        setattr(owner, attribute, timed)

    def take_away(self) -> None:
        """Leave every function as it was."""
        while self._inner:
            setattr(*self._inner.pop())


def phases(preset: str, hardware: Hardware, steps: int = 12) -> Figures:
    """Milliseconds of each phase of a step; what is left is `other`."""
    # a clock's stops cannot be recorded
    config = replace(aime_config(preset, COMPLETE, BATCH, LENGTH), cuda_graphs=False)
    joint = aime_learning(config, hardware)
    clips = [synthetic_clips(BATCH, LENGTH, 1)]
    for step in range(4):
        joint.step(clips, step, NEAR_THE_END)
    clock = Clock(hardware)
    assert joint.adversary is not None
    for owner, attribute, phase in (
        (joint, "forward", "forward"),
        (training, "task_losses", "losses"),
        (joint.adversary, "generator_loss", "adversarial_loss"),
        (joint.balancer, "differentiate", "backward"),
        (joint.balancer, "resolve", "rgb_direction"),
        (joint.nonfinite, "skip_if_nonfinite", "nonfinite"),
        *((optimizer, "step", type(optimizer).__name__.lower()) for optimizer in joint.optimizers),
        (joint.average, "update", "average"),
        (joint.adversary, "critic_backward", "discriminators"),
        (joint.adversary.optimizer, "step", "discriminators"),
    ):
        clock.put_around(owner, attribute, phase)
    clock.put_around(joint, "step", "step")
    for step in range(steps):
        joint.step(clips, step, NEAR_THE_END)
    clock.take_away()
    whole = clock.spent.pop("step")
    spent = clock.spent | {"other": whole - sum(clock.spent.values())}
    return {f"phase_{name}_ms": round(1000 * value / steps, 1) for name, value in spent.items()}


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write, each as if nothing stayed in a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            touched = [each for each in tree_leaves((args, kwargs, result)) if isinstance(each, Tensor)]
            self.bytes += sum(each.numel() * each.element_size() for each in touched)
        return result


class Peak(NamedTuple):
    """The best that the machine does."""

    flops: float
    """Operations per second of a product of matrices in the training's precision."""
    bytes: float
    """Bytes per second, read and written, of a copy."""


def peak(hardware: Hardware) -> Peak:
    """Measured, not looked up."""
    on_gpu = hardware.device.type == "cuda"
    size, count = (8192, 2**28) if on_gpu else (2048, 2**25)
    square = torch.randn(size, size, device=hardware.device, dtype=hardware.dtype)
    block = torch.empty(count, device=hardware.device)
    target = torch.empty_like(block)
    products = min(seconds(lambda: square @ square, hardware) for _ in range(7))
    copies = min(seconds(lambda: target.copy_(block), hardware) for _ in range(7))
    return Peak(2 * size**3 / products, 2 * block.nbytes / copies)


def hot_parts(model: AIME, hardware: Hardware) -> dict[str, Callable[[], object]]:
    """Each part forward and backward on what it would be given, by name."""
    frames = torch.rand(BATCH, LENGTH, 3, 64, 64, device=hardware.device).permute(0, 1, 3, 4, 2).contiguous()
    frames = frames.permute(0, 1, 4, 2, 3)
    centred = model.centre(frames)
    actions = torch.rand(BATCH, LENGTH, model.config.action_width, device=hardware.device)
    with torch.no_grad(), hardware.autocast():
        sight = model.perceive(frames)
        latents = model.infer(sight).mean
        contexts = sight.percept.contexts.to(latents.dtype)
        track = model.dynamics.scan(latents, contexts, actions)
        maps = model.attention(sight.seen, track.beliefs, latents).shown
    learning = lambda each: each.detach().clone().requires_grad_()  # noqa: E731
    levels = tuple(learning(each) for each in sight.pyramid)
    told = learning(latents)

    def both_ways(forward: Callable[[], object]) -> Callable[[], None]:
        def act() -> None:
            with hardware.autocast():
                found = forward()
            reached = [each for each in tree_leaves(found) if isinstance(each, Tensor) and each.requires_grad]
            torch.autograd.backward([each.float().square().mean() for each in reached])

        return act

    unflat = centred.shape[:2]
    return {
        "tokenizer": both_ways(lambda: tuple(model.tokenizer(centred)[0])),
        "perceiver": both_ways(
            lambda: model.perceiver(learning(sight.tokens.codes), sight.seen.map.unflatten(0, unflat))[0]
        ),
        "encoder": both_ways(
            lambda: tuple(model.encoder(model.encoder.pyramid(centred.flatten(0, 1)), contexts.flatten(0, 1)))
        ),
        "attention_look": both_ways(lambda: tuple(model.attention.look(levels))),
        "belief_and_prior": both_ways(lambda: model.dynamics.scan(told, contexts, actions)),
        "decoder": both_ways(lambda: model.decode(told.flatten(0, 1), maps.flatten(0, 1))),
    }


def roofline(preset: str, hardware: Hardware) -> Figures:
    """Of each hot part: GFLOP, megabytes, the floor they imply, and the measured time over it."""
    best = peak(hardware)
    figures: Figures = {"peak_gflops": round(best.flops / 1e9), "peak_gb_per_second": round(best.bytes / 1e9, 1)}
    model = AIME(aime_config(preset, COMPLETE, BATCH, LENGTH).model).to(hardware.device).train()
    for name, act in hot_parts(model, hardware).items():
        act()
        with Traffic() as traffic:
            act()
        operations = flops(act)
        floor = max(operations / best.flops, traffic.bytes / best.bytes)
        measured = statistics.median(seconds(act, hardware) for _ in range(5))
        figures[f"{name}_gflop"] = round(operations / 1e9, 2)
        figures[f"{name}_mb"] = round(traffic.bytes / 1e6)
        figures[f"{name}_floor_ms"] = round(1000 * floor, 1)
        figures[f"{name}_ms"] = round(1000 * measured, 1)
        figures[f"{name}_over_floor"] = round(measured / floor, 2)
    return figures


def main() -> None:
    """Measure and print."""
    parser = parser_with_machine(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds, after those of warm-up")
    options = parser.parse_args()
    machine = machine_of(options)
    hardware = machine.hardware()
    found = pillars(options.preset, machine, options.rounds)
    show(machine.describe() | found | phases(options.preset, hardware) | roofline(options.preset, hardware))


if __name__ == "__main__":
    main()
