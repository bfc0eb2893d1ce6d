"""The config of a short run on four small episodes, for tests of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conftest import synthetic_episode
from tests.models import SIZE, small_config

from aime.data import write_shard
from aime.objectives.weights import OvershootConfig
from aime.training.config import DynamicsFinetuningConfig, TrainConfig


def short_run(place: Path, **changes: Any) -> TrainConfig:
    """Writes PLACE/data.h5; the run goes to PLACE/run."""
    write_shard(place / "data.h5", [synthetic_episode(20, seed, size=SIZE) for seed in range(4)])
    settings: dict[str, Any] = {
        "data": str(place / "data.h5"),
        "out": place / "run",
        "model": small_config(),
        "steps": 1,
        "batch": 2,
        "length": 6,
        "log_every": 1,
        "pictures": False,
        "device": "cpu",
        "precision": "fp32",
        "dynamics_finetuning": DynamicsFinetuningConfig(share=0.0),
        "overshoot": OvershootConfig(steps=3),
    }
    return TrainConfig(**settings | changes)
