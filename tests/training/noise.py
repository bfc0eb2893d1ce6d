"""A short training run on random data, for tests of single steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from tests.models import SIZE, small_config

from aime.data import Clips
from aime.objectives.weights import OvershootConfig
from aime.primitives.hardware import Hardware
from aime.training.config import TrainConfig
from aime.training.joint import JointLearning, StepResult
from aime.world_model.model import AIME

BATCH, LENGTH = 2, 6


def noise() -> Clips:
    """A batch whose frames and actions are drawn at random."""
    valid = torch.ones(BATCH, LENGTH, dtype=torch.bool)
    frames = torch.randint(0, 256, (BATCH, LENGTH, 3, SIZE, SIZE), dtype=torch.uint8)
    nothing = torch.zeros(BATCH, LENGTH)
    return Clips(frames, torch.rand(BATCH, LENGTH, 2), nothing, nothing.bool(), valid, valid, valid, None)


def take(joint: JointLearning, step: int) -> StepResult:
    """A step on noise, after `step` others of a hundred."""
    return joint.step([noise()], step, step / 100)


def noise_learning(hardware: Hardware, cuda_graphs: bool = True) -> JointLearning:
    """Joint learning of fresh weights."""
    config = replace(noise_run(), cuda_graphs=cuda_graphs)
    return JointLearning(config, AIME(config.model), hardware)


def noise_run() -> TrainConfig:
    """A hundred steps of a small model with all its tasks."""
    return TrainConfig(
        data="noise",
        out=Path("unused"),
        model=small_config(),
        steps=100,
        batch=BATCH,
        length=LENGTH,
        overshoot=OvershootConfig(steps=3),
    )
