"""Small complete runs: they learn, resume bit for bit, start from other runs, and stop without loss."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from tests.conftest import synthetic_episode
from tests.models import SIZE, small_config

from aime.data import Dataset, write_shard
from aime.errors import AimeError
from aime.objectives.adversarial import AdversaryConfig
from aime.objectives.weights import OvershootConfig
from aime.primitives import signals
from aime.primitives.locks import only_writer
from aime.primitives.signals import Interrupted
from aime.primitives.tensor_files import save_weights
from aime.runs.checkpoint_files import read_progress
from aime.training.config import DynamicsFinetuningConfig, TrainConfig
from aime.training.joint import JointLearning
from aime.training.optimizers import OptimizerConfig
from aime.training.trainer import train
from aime.world_model.model import AIME


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("data")
    write_shard(directory / "000.h5", [synthetic_episode(20, seed, size=SIZE) for seed in range(6)])
    return directory


@pytest.fixture
def config(data: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        data=str(data),
        out=tmp_path / "run",
        model=small_config(),
        steps=4,
        batch=2,
        length=6,
        log_every=1,
        checkpoint_every=2,
        device="cpu",
        precision="fp32",
        overshoot=OvershootConfig(steps=3),
        dynamics_finetuning=DynamicsFinetuningConfig(share=0.0),
        pictures=False,
    )


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoint" / "model.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_a_model_a_log_and_its_config(config: TrainConfig) -> None:
    result = train(config)
    assert (result.step, result.interrupted) == (4, False)
    lines = log(config.out)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    expected = {"loss", "elbo/kl_z", "perceiver/vq_commitment", "predictive/overshoot_latent", "codebook_perplexity"}
    assert expected <= lines[-1].keys()
    assert all(value is not None for value in lines[-1].values())
    model = AIME.from_pretrained(config.out)
    assert not model.training
    assert model.config == config.model
    assert 0 < model.mean_image.mean() < 1


def test_an_accumulated_step_logs_the_mean_of_its_batches(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    means: list[dict[str, float]] = []
    parts: list[dict[str, float]] = []
    differentiate = JointLearning._differentiate

    def noted(joint: JointLearning, *arguments: Any) -> Any:
        losses, output = differentiate(joint, *arguments)
        named = {name: float(value) for loss in losses for name, value in loss.named()}
        parts.append(named | {"loss": float(sum(loss.total.detach() for loss in losses))})
        return losses, output

    monkeypatch.setattr(JointLearning, "_differentiate", noted)
    train(replace(config, steps=2, accumulate=2))
    for first, second in zip(parts[::2], parts[1::2], strict=True):
        assert first["elbo/reconstruction"] != second["elbo/reconstruction"]
        means.append({name: (first[name] + second[name]) / 2 for name in first})
    for line, mean in zip(log(config.out), means, strict=True):
        assert {name: line[name] for name in mean} == pytest.approx(mean, rel=1e-5)


def test_the_logged_loss_is_what_is_learned_from(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weighted terms of the log itself; the adversary's by its ramp, a quarter of the way more at each step."""
    monkeypatch.setattr(AdversaryConfig, "warmup", 0.0)
    monkeypatch.setattr(AdversaryConfig, "ramp", 1.0)
    train(config)
    for number, line in enumerate(log(config.out)):
        expected = 0.0
        for task in ("elbo", "perceiver", "predictive", "adversarial"):
            for term, weight in vars(getattr(config.weights, task)).items():
                factor = number / 4 if task == "adversarial" else 1.0
                expected += factor * weight * line.get(f"{task}/{term}", 0.0)
        assert line["loss"] == pytest.approx(expected, rel=1e-4)
        assert ("adversarial/image_generator" in line) == (number > 0)


def test_training_lowers_the_loss(config: TrainConfig) -> None:
    train(replace(config, steps=24, checkpoint_every=1000, optimizer=OptimizerConfig(learning_rate=3e-3)))
    lines = log(config.out)
    first, last = (sum(line["loss"] for line in part) / 4 for part in (lines[:4], lines[-4:]))
    assert last < first - 500, "nats per frame"


def test_the_same_seed_gives_the_same_run_and_another_seed_another(config: TrainConfig, tmp_path: Path) -> None:
    runs = [replace(config, steps=2, out=tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    for run in runs:
        train(run)
    assert same(weights(runs[0].out), weights(runs[1].out))
    assert not same(weights(runs[0].out), weights(runs[2].out))


def test_a_resumed_run_ends_at_the_bits_of_one_that_never_stopped(config: TrainConfig, tmp_path: Path) -> None:
    # the schedule looks at the planned end, so the first half is stopped by a signal rather than planned shorter
    whole = replace(config, out=tmp_path / "whole", steps=4)
    train(whole)
    halves = replace(config, out=tmp_path / "halves", steps=4)
    stop_after(halves, step=2)
    assert [line["step"] for line in log(halves.out)] == [1, 2]
    result = train(replace(halves, resume=True))
    assert result.step == 4
    assert same(weights(whole.out), weights(halves.out))
    assert [line["step"] for line in log(halves.out)] == [1, 2, 3, 4]


def test_pictures_change_not_a_bit_of_training(complete: TrainConfig, tmp_path: Path) -> None:
    """The sampled picture draws random numbers, which training must not miss."""
    with_pictures = replace(complete, out=tmp_path / "with", checkpoint_every=1, pictures=True)
    without = replace(with_pictures, out=tmp_path / "without", pictures=False)
    for run in (with_pictures, without):
        train(run)
    assert [path.name for path in sorted((with_pictures.out / "pictures").iterdir())] == [
        f"step-00000{step}.png" for step in (1, 2, 3, 4)
    ]
    assert not (without.out / "pictures").exists()
    assert same(weights(with_pictures.out), weights(without.out))
    states = [json.loads((run.out / "checkpoint" / "state.json").read_text()) for run in (with_pictures, without)]
    assert states[0]["cpu_random_state"] == states[1]["cpu_random_state"]


def test_the_last_step_has_a_picture_too_in_tensorboard_as_in_the_file(config: TrainConfig) -> None:
    train(replace(config, steps=3, pictures=True))
    names = [path.name for path in sorted((config.out / "pictures").iterdir())]
    assert names == ["step-000002.png", "step-000003.png"]
    events = EventAccumulator(str(config.out / "tensorboard")).Reload().Images("progress")
    assert [event.step for event in events] == [2, 3]
    with Image.open(config.out / "pictures" / names[-1]) as file:
        logged = np.asarray(Image.open(io.BytesIO(events[-1].encoded_image_string)))
        assert (np.asarray(file) == logged).all()


@pytest.fixture
def complete(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """Every task and phase of a step: an adversary heard from the second step on, RGB."""
    for name, value in {"warmup": 0.25, "ramp": 0.5, "learning_rate": 1e-2}.items():
        monkeypatch.setattr(AdversaryConfig, name, value)
    return replace(config, balancer="rgb")


def test_a_complete_run_resumes_to_the_same_bits(complete: TrainConfig, tmp_path: Path) -> None:
    whole, halves = replace(complete, out=tmp_path / "whole"), replace(complete, out=tmp_path / "halves")
    train(whole)
    stop_after(halves, step=2)
    train(replace(halves, resume=True))
    for file in ("model", "adversary", "critic", "balancer"):
        ends = [load_file(run.out / "checkpoint" / f"{file}.safetensors") for run in (whole, halves)]
        assert same(*ends), file


def test_the_adversary_learns_on_its_steps_and_is_heard_after_the_warm_up(
    complete: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AdversaryConfig, "warmup", 0.5)
    train(complete)
    learned = ["discriminator/image" in line for line in log(complete.out)]
    heard = ["adversarial/image_generator" in line for line in log(complete.out)]
    assert learned == [False, True, False, True]
    assert heard == [False, False, False, True]  # at the warm-up's end itself the ramp is still 0


def test_the_adversary_s_loss_changes_the_model_and_its_own_step_does_not(
    complete: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(name: str, **constants: float) -> dict[str, torch.Tensor]:
        for constant, value in constants.items():
            monkeypatch.setattr(AdversaryConfig, constant, value)
        run = replace(complete, out=tmp_path / name, steps=3, balancer="sum")
        train(run)
        return weights(run.out)

    unheard = end("unheard", warmup=1.0)
    assert same(unheard, end("unheard, learning faster", warmup=1.0, learning_rate=1e-1))
    assert not same(unheard, end("heard", warmup=0.0, ramp=0.0))


def stop_after(config: TrainConfig, step: int) -> None:
    """Train, and send this process SIGTERM as soon as the log shows the step."""
    from aime.runs.logbook import Logbook

    original = Logbook.log

    def log_then_signal(self: Logbook, phase, progress, figures) -> None:  # type: ignore[no-untyped-def]
        original(self, phase, progress, figures)
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Logbook, "log", log_then_signal)
        assert threading.current_thread() is threading.main_thread()
        result = train(config)
    assert result.interrupted
    assert result.step == step


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_first_step_ends_at_once_and_the_run_starts_again(
    config: TrainConfig, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def receive(dataset: Dataset) -> object:
        os.kill(os.getpid(), number)
        time.sleep(5)
        raise AssertionError("went on")

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Dataset, "mean_image", receive)
        train(config)
    assert signal.getsignal(number) is not None
    assert sorted(path.name for path in config.out.iterdir()) == ["config.yaml", "manifest.json"]
    assert train(replace(config, resume=True, steps=1, pictures=False)).step == 1


def test_signals_while_the_last_checkpoint_is_written_do_not_abandon_it(config: TrainConfig) -> None:
    """Ctrl-C in the loop, and again 0.05 s later, while the run is being saved."""

    def write_and_receive(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        save_weights(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signals, "_ONE_EVENT", 60.0)
        patch.setattr("aime.runs.checkpoint_files.save_weights", write_and_receive)
        result = train(replace(config, steps=9, checkpoint_every=2, pictures=False))
    assert (result.step, result.signal) == (2, signal.SIGINT)
    assert read_progress(config.out).step == 2


def test_a_signal_that_ends_at_once_leaves_the_checkpoint_before(config: TrainConfig) -> None:
    train(replace(config, steps=1, pictures=False))

    def write_and_receive(*arguments: Any) -> None:
        save_weights(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(signals, "_ONE_EVENT", 0.0)
        patch.setattr("aime.runs.checkpoint_files.save_weights", write_and_receive)
        train(replace(config, steps=2, resume=True, pictures=False))
    assert read_progress(config.out).step == 1
    assert not list(config.out.glob("checkpoint.*"))


def test_accumulated_batches_average_their_gradients(config: TrainConfig) -> None:
    result = train(replace(config, steps=2, accumulate=3))
    assert result.step == 2
    assert log(config.out)[-1]["frames"] == 2 * 3 * config.batch * config.length


def test_a_directory_in_use_is_not_overwritten(config: TrainConfig) -> None:
    train(replace(config, steps=1))
    before = (config.out / "config.yaml").read_bytes()
    with pytest.raises(AimeError, match=r"run: exists and is not empty.*--resume"):
        train(replace(config, steps=9))
    assert (config.out / "config.yaml").read_bytes() == before


def test_the_same_command_starts_a_run_that_was_killed_before_its_config_was_written(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("aime.training.run_directory.write_atomically", killed)
        train(config)
    assert "manifest.json" in {path.name for path in config.out.iterdir()}
    assert not (config.out / "config.yaml").exists()
    assert train(replace(config, steps=1)).step == 1


def end_before_a_checkpoint(config: TrainConfig) -> None:
    """Leave what a SIGKILL before the first checkpoint leaves."""
    train(config)
    shutil.rmtree(config.out / "checkpoint")
    (config.out / ".lock").write_text("machine 1\n")


def test_a_run_that_ended_before_its_first_checkpoint_starts_again(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = replace(config, out=tmp_path / "whole", steps=3)
    train(whole)
    end_before_a_checkpoint(replace(config, steps=3))
    with pytest.raises(AimeError, match=r"ended before its first checkpoint; .* or give --resume, which starts"):
        train(replace(config, steps=3))
    capsys.readouterr()
    assert train(replace(config, steps=3, resume=True)).step == 3
    assert capsys.readouterr().out.count("has no checkpoint yet: starting again with its settings") == 1
    assert same(weights(whole.out), weights(config.out))
    assert [line["step"] for line in log(config.out)] == [1, 2, 3]


def test_the_first_checkpoint_comes_after_a_minute_at_the_latest(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aime.training.trainer._FIRST_SAVE_SECONDS", 0.0)
    saved: list[int] = []
    monkeypatch.setattr("aime.training.trainer.save", lambda run, trained, progress: saved.append(progress.step))
    train(replace(config, steps=4, checkpoint_every=3, pictures=False))
    assert saved == [1, 3, 4]


def test_one_trainer_a_run(config: TrainConfig) -> None:
    train(replace(config, steps=1))
    with only_writer(config.out), pytest.raises(AimeError, match=rf"run: process {os.getpid()} on .* is writing to it"):
        train(replace(config, steps=2, resume=True))
    assert len(log(config.out)) == 1


@pytest.mark.parametrize("change", [{"image_size": 64}, {"action_width": 3}])
def test_data_of_another_shape_is_refused_before_anything_is_written(
    config: TrainConfig, change: dict[str, int]
) -> None:
    with pytest.raises(AimeError, match=r"data\d*: (image size|action width) is .* expected the model's"):
        train(replace(config, model=replace(config.model, **change)))  # type: ignore[arg-type]
    assert not config.out.exists()


def test_resuming_with_another_model_names_the_field(config: TrainConfig) -> None:
    train(replace(config, steps=1))
    other = replace(config, resume=True, steps=2, model=replace(config.model, belief=24))
    with pytest.raises(AimeError, match=r"model\.belief is 16 there; expected 24"):
        train(other)


def test_resuming_what_is_no_run_is_refused(config: TrainConfig) -> None:
    with pytest.raises(AimeError, match="run"):
        train(replace(config, resume=True))
    assert not config.out.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"minutes": 1.0},
        {"steps": None},
        {"steps": 0},
        {"batch": 0},
        {"length": 1},
        {"accumulate": 0},
        {"balancer": "rgd"},
    ],
)
def test_impossible_settings_are_refused(config: TrainConfig, change: dict[str, object]) -> None:
    with pytest.raises(AimeError, match=next(iter(change))):
        replace(config, **change)  # type: ignore[arg-type]
