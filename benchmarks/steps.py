"""Whole optimizer steps to time: AIME as a preset trains it, parts of it, and the peer."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from measuring import synthetic_clips
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from aime.benchmarking.ablation.variants import VARIANTS, complete
from aime.objectives.weights import PredictiveWeights
from aime.primitives.hardware import Hardware
from aime.primitives.pixels import to_unit
from aime.training.config import TrainConfig
from aime.training.joint import JointLearning
from aime.training.presets import preset_run
from aime.world_model.model import AIME

STEPS = 2
"""In what is timed: the discriminators learn in every second step."""

NEAR_THE_END = 0.9
"""Share of a run that is done, so that every task is heard."""

ELBO_AND_PERCEIVER = "elbo-and-perceiver"
"""What is left of a run without its predictive and adversarial tasks and RGB."""


def aime_config(preset: str, variant: str, batch: int, length: int) -> TrainConfig:
    """A run on noise of one of the ablation's variants, or `ELBO_AND_PERCEIVER`."""
    config = complete(preset_run(preset, "noise", Path("unused"), 1, 64))
    config = replace(config, batch=batch, length=length)
    if variant != ELBO_AND_PERCEIVER:
        return VARIANTS[variant].switch(config)
    weights = replace(config.weights, predictive=PredictiveWeights(*[0.0] * 8))
    return replace(config, weights=weights, adversary=replace(config.adversary, enabled=False), balancer="sum")


def aime_learning(config: TrainConfig, hardware: Hardware) -> JointLearning:
    """Joint learning of fresh weights."""
    return JointLearning(config, AIME(config.model), hardware)


def aime_step(preset: str, variant: str, batch: int, length: int, hardware: Hardware) -> Callable[[], object]:
    """`STEPS` whole steps of AIME."""
    return aime_steps(aime_learning(aime_config(preset, variant, batch, length), hardware), batch, length)


def aime_steps(joint: JointLearning, batch: int, length: int) -> Callable[[], object]:
    """`STEPS` whole steps, near the end of a run, where every task is heard."""
    clips, taken = [synthetic_clips(batch, length, 1)], itertools.count()

    def act() -> None:
        for _ in range(STEPS):
            joint.step(clips, next(taken), NEAR_THE_END)

    return act


def peer_step(batch: int, length: int, hardware: Hardware) -> Callable[[], object]:
    """`STEPS` whole steps of the peer: forward, backward, clipping, Adam."""
    from dreamer_v3 import DreamerV3, DreamerV3Config

    model = DreamerV3(DreamerV3Config(1)).to(hardware.device).train()
    optimizer = torch.optim.Adam(model.parameters(), 3e-4, fused=True)
    clips = synthetic_clips(batch, length, 1).to(hardware.device)

    def act() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=True)
            with hardware.autocast():
                total = model(to_unit(clips.frames), clips.actions).total
            total.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1000.0)
            optimizer.step()

    return act


class _Whole(nullcontext[None]):
    """All of a step as one module."""

    parents = frozenset({"Global"})


def flops(act: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions in one call."""
    counter = FlopCounterMode(display=False)
    # by module it counts through hooks that a module called within no_grad inside a step breaks
    counter.mod_tracker = _Whole()  # type: ignore[assignment]
    with counter:
        act()
    return counter.get_total_flops()


def parameters(model: nn.Module) -> int:
    """Their number."""
    return sum(weight.numel() for weight in model.parameters())
