"""Untrained runs on small data: every file of a run, none of the waiting."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from tests.conftest import synthetic_episode
from tests.models import SIZE, small_config

from aime.data import open_dataset, write_shard
from aime.data.manifest import MANIFEST, Manifest, SourceRecord
from aime.data.splitting import Rule
from aime.primitives.config_io import to_yaml
from aime.primitives.tensor_files import save_weights
from aime.world_model.model import AIME


class Run(NamedTuple):
    """A run directory, and the data that it says it was trained on."""

    path: Path
    data: Path


AttentionKind = Literal["schema", "uniform"]

MakeRun = Callable[..., Run]


def write_manifest(run: Path, data: Path | str, share: float) -> Manifest:
    """What `aime train` writes of a run that trained on all of the data but a share."""
    found = open_dataset(data).by_source
    held_out = Rule(share).choose([digests for _, digests in found])
    manifest = Manifest(sources=tuple(SourceRecord.of(source, run, each.digests, held_out) for source, each in found))
    manifest.write(run / MANIFEST)
    return manifest


def write_run(
    place: Path, size: int = SIZE, action_width: int = 2, length: int = 20, kind: AttentionKind = "schema"
) -> Run:
    """A run with random weights and a log of 30 steps, and eight episodes, of which two are held out: one a half.

    A run with attention has logged the figures of the balancer RGB.
    """
    run = Run(place / "run", place / "data")
    episodes = [synthetic_episode(length, seed, size, action_width) for seed in range(8)]
    write_shard(run.data / "0.h5", episodes[:4])
    write_shard(run.data / "1.h5", episodes[4:])
    torch.manual_seed(0)
    config = dataclasses.replace(small_config(), image_size=size, action_width=action_width)
    config = dataclasses.replace(config, attention=dataclasses.replace(config.attention, kind=kind))
    model = AIME(config)
    torch.nn.init.normal_(model.decoder.head.weight, std=0.05)
    assert model.dynamics.control is not None
    model.dynamics.control.rewards_seen.fill_(1)
    for image in (model.mean_image, model.baseline_image):
        image.copy_(torch.from_numpy(open_dataset(run.data).mean_image()))
    save_weights(model.state_dict(), run.path / "checkpoint" / "ema.safetensors")
    train = {"data": str(run.data), "seed": 0, "held_out": 0.25}
    write_manifest(run.path, run.data, 0.25)
    (run.path / "config.yaml").write_text(to_yaml({"preset": "small", "model": config, "train": train}))
    log = [
        {"step": step, "seconds": step / 2, "frames": 64 * step, "loss": 9 / step, "elbo/kl_z": step, "speed": 1.0}
        for step in range(1, 31)
    ]
    if kind == "schema":
        balance = {"norm_elbo": 2.0, "norm_a": 1.0, "angle_elbo": 0.5, "angle_a": 0.1, "cosine_elbo_a": -0.2}
        log = [line | {f"balance/{name}": value for name, value in balance.items()} for line in log]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return run
