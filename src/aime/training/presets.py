"""Training settings of the presets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from aime.training.config import TrainConfig
from aime.world_model.presets import PRESETS


def preset_run(preset: str, data: str, out: Path, action_width: int, image_size: int) -> TrainConfig:
    """The training config of a preset, one of `PRESETS`, for one minute.

    `fast` sums the tasks' gradients and has no adversary.
    """
    config = TrainConfig(data, out, PRESETS[preset](action_width, image_size), preset, minutes=1.0)
    if preset == "fast":
        return replace(config, balancer="sum", adversary=replace(config.adversary, enabled=False))
    return config
