"""Configs of earlier versions are read if their former settings equal the constants that replaced them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aime.errors import AimeError
from aime.primitives.config_io import from_plain, to_plain
from aime.training.config import TrainConfig
from aime.training.presets import preset_run

BEFORE: dict[str, Any] = {
    "model.expected_hidden": 128,
    "model.tokenizer.multipliers": [1, 2, 2],
    "model.tokenizer.cells": [1, 1, 1],
    "model.tokenizer.kernel_time": 3,
    "model.perceiver.heads": 4,
    "model.perceiver.dropout": 0.1,
    "model.encoder.multipliers": [1, 2, 2],
    "model.encoder.cells": [1, 1, 1],
    "model.prior.dropout": 0.1,
    "model.prior.min_std": 0.03,
    "model.prior.max_std": 3.0,
    "model.prior.start_std": 0.2,
    "model.prior.mean_spread": 0.05,
    "model.attention.hidden": 64,
    "model.attention.fusion": "gated",
    "model.attention.precision": 0.3,
    "model.attention.expected_share": 0.5,
    "model.decoder.multipliers": [1, 2, 2],
    "model.decoder.cells": [1, 1, 1],
    "model.control.bins": 101,
    "model.control.components": 5,
    "model.state.hidden": 128,
    "compile": False,
    "optimizer.muon_factor": 1.5,
    "optimizer.warmup": 30,
    "optimizer.clip": 1.0,
    "weights.kl_balance": {"prior": 1.0, "posterior": 1.0, "free_nats": 1.0},
    "weights.attention_balance": {"prior": 0.5, "posterior": 0.5},
    "overshoot.starts": 2,
    "overshoot.frames": 16,
    "replay.capacity": 256,
    "dynamics_finetuning.frames": 65536,
    "dynamics_finetuning.passes": 60.0,
    "dynamics_finetuning.clips": 32,
    "dynamics_finetuning.weight_decay": 0.45,
    "dynamics_finetuning.clip": 100.0,
    "dynamics_finetuning.latent_augmentation": 0.5,
    "dynamics_finetuning.left_out": 0.1,
    "adversary.n_critic": 2,
    "adversary.warmup": 0.5,
    "adversary.ramp": 0.25,
    "adversary.frames": 32,
    "adversary.learning_rate": 0.0004,
    "adversary.discriminators": {"channels": 24, "levels": 3, "window": 4},
    "zoom": {"share": 0.0, "least": 0.85},
    "rgb": {"scope": "module", "angle_steps": 3},
}
"""What `aime train tiny` wrote for settings that are constants now."""

OTHERS: dict[str, Any] = {
    "compile": True,
    "model.attention.fusion": "max",
    "weights.kl_balance": {"prior": 1.0, "posterior": 0.1, "free_nats": 1.0},
    "weights.attention_balance": {"prior": 0.5, "posterior": 0.1},
    "adversary.discriminators": {"channels": 24, "levels": 3},
    "zoom": {"share": 0.5, "least": 0.85},
    "rgb": {"scope": "model", "angle_steps": 3},
}
"""Other values of those that are neither numbers nor lists."""


@pytest.fixture
def config() -> TrainConfig:
    return preset_run("tiny", "data", Path("run"), 1, 64)


def written_before(config: TrainConfig, settings: dict[str, Any]) -> Any:
    plain = to_plain(config)
    for path, value in settings.items():
        *parts, name = path.split(".")
        place: Any = plain
        for part in parts:
            place = place[part]
        place[name] = value
    return plain


def test_a_run_with_the_defaults_of_before_is_read(config: TrainConfig) -> None:
    assert from_plain(TrainConfig, written_before(config, BEFORE), "run.yaml") == config


@pytest.mark.parametrize("path", BEFORE)
def test_a_run_with_another_value_is_refused_in_one_line(path: str, config: TrainConfig) -> None:
    value = BEFORE[path]
    other = OTHERS[path] if path in OTHERS else [1, 1, 2] if isinstance(value, list) else 2 * value
    with pytest.raises(AimeError, match=rf"^run.yaml: {path}.* found .* use the aime version that wrote") as error:
        from_plain(TrainConfig, written_before(config, BEFORE | {path: other}), "run.yaml")
    assert "\n" not in str(error.value)
