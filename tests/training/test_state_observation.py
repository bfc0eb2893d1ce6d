"""Runs that observe a state learn, save, resume and evaluate it, and work without it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.models import SIZE, small_config

from aime.data import Episode, load_clips, open_dataset, write_shard
from aime.errors import AimeError
from aime.inference.evaluate import evaluate_run
from aime.inference.report import write_report
from aime.inference.request import EvaluationRequest
from aime.objectives.weights import OvershootConfig
from aime.perception.state_reader import StateConfig
from aime.training.config import TrainConfig
from aime.training.optimizers import OptimizerConfig
from aime.training.trainer import train
from aime.world_model.model import AIME
from aime.world_model.saved import read_run


def swinging_episode(length: int, seed: int) -> Episode:
    """A bar that swings from side to side, and its place and speed, in units far from each other."""
    generator = np.random.default_rng(seed)
    phase = 0.4 * np.arange(length) + generator.uniform(0, 2 * np.pi)
    place, speed = np.sin(phase), np.cos(phase)
    pixels = np.full((length, SIZE, SIZE, 3), 40, np.uint8)
    for step, column in enumerate((SIZE / 2 + place * (SIZE / 2 - 4)).astype(int)):
        pixels[step, :, column - 2 : column + 3] = 220
    state = np.stack([100 + 30 * place, 0.01 * speed, np.full(length, 7.0)], axis=1).astype(np.float32)
    state[length // 2, 1] = np.nan
    action = np.zeros((length, 2), np.float32)
    return Episode(pixels, action, np.zeros(length, np.float32), np.zeros(length, bool), state)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("swinging")
    write_shard(directory / "000.h5", [swinging_episode(24, seed) for seed in range(8)])
    return directory


@pytest.fixture(scope="module")
def config(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    return TrainConfig(
        data=str(data),
        out=tmp_path_factory.mktemp("runs") / "run",
        model=replace(small_config(), state=StateConfig(width=3)),
        steps=60,
        batch=4,
        length=8,
        held_out=0.25,
        log_every=1,
        checkpoint_every=1000,
        device="cpu",
        precision="fp32",
        pictures=False,
        observe_state=True,
        balancer="sum",
        optimizer=OptimizerConfig(learning_rate=3e-3),
        overshoot=OvershootConfig(steps=3),
    )


@pytest.fixture(scope="module")
def trained(config: TrainConfig) -> TrainConfig:
    train(config)
    return config


def log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_state_is_learned_in_its_own_units(trained: TrainConfig, data: Path) -> None:
    lines = [line["elbo/state_nll"] for line in log(trained.out) if "elbo/state_nll" in line]
    first, last = (sum(part) / len(part) for part in (lines[:5], lines[-10:]))
    assert last < first - 2, "nats per frame"
    model = AIME.from_pretrained(trained.out)
    scale = model.state_scale
    assert scale is not None
    train_states = np.concatenate([episode.state for episode in open_dataset(data, "train", 0.25)])
    np.testing.assert_allclose(scale.mean, np.nanmean(train_states.astype(np.float64), axis=0), rtol=1e-5, atol=1e-6)
    deviation = np.nanstd(train_states.astype(np.float64), axis=0)
    np.testing.assert_allclose(scale.std, np.where(deviation > 0, deviation, 1), rtol=1e-4)


def test_it_is_predicted_better_than_the_mean_with_it_and_from_frames_alone(trained: TrainConfig, data: Path) -> None:
    model = AIME.from_pretrained(trained.out)
    clips = load_clips(open_dataset(data, "held-out", 0.25), 12, 4)
    assert clips.states is not None
    truth = clips.states[:, 4:, 0]
    for states in (clips.states, None):
        track = model.forward_sequence(clips.frames, clips.actions, clips.action_valid, states).track
        found = model.dynamics.predict_state(*track.read)
        assert found is not None
        error = (found[:, 4:, 0] - truth).square().mean()
        assert error < 0.6 * (truth - 100).square().mean()


def test_a_run_is_judged_and_reported_with_its_states(trained: TrainConfig, data: Path, tmp_path: Path) -> None:
    request = EvaluationRequest(part="all", context=4, horizon=6, samples=2, clips=2, device="cpu")
    evaluation = evaluate_run(trained.out, request)
    assert evaluation.states is not None and list(evaluation.states) == [1, 2, 3, 4, 5, 6]
    for score in evaluation.states.values():
        assert score.r2 == pytest.approx(1 - (score.error / score.mean) ** 2, abs=2e-7)
    page = write_report(trained.out, request).read_text(encoding="utf-8")
    assert "state error against horizon" in page and "state, R²" in page
    # a film without states is judged by its frames
    write_shard(tmp_path / "0.h5", [replace(swinging_episode(24, 9), state=None)])
    assert evaluate_run(trained.out, replace(request, data=tmp_path)).states is None
    write_shard(tmp_path / "other" / "0.h5", [replace(swinging_episode(24, 9), state=np.zeros((24, 2), np.float32))])
    with pytest.raises(AimeError, match="state: width is 2, expected 3"):
        evaluate_run(trained.out, replace(request, data=tmp_path / "other", part="test"))


def test_runs_go_on_with_a_state_and_begin_with_one(config: TrainConfig, tmp_path: Path) -> None:
    short = replace(config, out=tmp_path / "short", steps=1)
    train(short)
    assert "states" in load_file(short.out / "checkpoint" / "replay.safetensors")
    assert train(replace(short, steps=2, resume=True)).step == 2
    alone = replace(short, out=tmp_path / "alone", observe_state=False, model=small_config())
    train(alone)
    assert read_run(alone.out).model.state == StateConfig()
    tuned = replace(short, out=tmp_path / "tuned", init_from=alone.out, optimizer=OptimizerConfig(learning_rate=0.0))
    train(tuned)
    model = AIME.from_pretrained(tuned.out)
    assert model.state_scale is not None and 90 < model.state_scale.mean[0] < 110
    before = load_file(alone.out / "checkpoint" / "ema.safetensors")
    after = load_file(tuned.out / "checkpoint" / "model.safetensors")
    assert all(torch.equal(after[name], before[name]) for name, _ in AIME(small_config()).named_parameters())


def test_data_without_the_state_is_refused_before_anything_is_written(config: TrainConfig, tmp_path: Path) -> None:
    write_shard(tmp_path / "data" / "0.h5", [replace(swinging_episode(24, seed), state=None) for seed in range(2)])
    wanting = replace(config, data=str(tmp_path / "data"), out=tmp_path / "run")
    with pytest.raises(AimeError, match=r"data: has no 'state'; expected one of width 3 .*--observe-state"):
        train(wanting)
    wider = replace(config.model, state=StateConfig(width=4))
    with pytest.raises(AimeError, match=r"state width is 3; expected the model's 4"):
        train(replace(config, out=tmp_path / "run", model=wider))
    assert not (tmp_path / "run").exists()
    with pytest.raises(AimeError, match=r"observe_state is on and model.state.width is 0"):
        replace(config, model=small_config())
