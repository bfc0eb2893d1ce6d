"""Non-finite steps change no weights, are attributed to a cause, and stop training if there are too many."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import synthetic_episode
from tests.models import SIZE, small_config

from aime.data import write_shard
from aime.errors import AimeError
from aime.objectives.adversarial import AdversaryConfig, discriminator_loss
from aime.objectives.ledger import TaskLoss
from aime.objectives.tasks import task_losses
from aime.objectives.weights import OvershootConfig
from aime.training import adversary, joint
from aime.training.config import TrainConfig
from aime.training.trainer import train
from aime.world_model.model import AIME

Spoil = Callable[[TaskLoss], TaskLoss]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("data")
    write_shard(directory / "000.h5", [synthetic_episode(12, seed, size=SIZE) for seed in range(4)])
    return directory


@pytest.fixture
def config(data: Path, tmp_path: Path) -> TrainConfig:
    overshoot = OvershootConfig(steps=3)
    run = TrainConfig(str(data), tmp_path / "run", small_config(), steps=4, batch=2, length=6, overshoot=overshoot)
    return replace(run, log_every=1, checkpoint_every=1, device="cpu", precision="fp32", pictures=False)


def spoil_steps(monkeypatch: pytest.MonkeyPatch, steps: set[int], task: str, spoil: Spoil) -> None:
    """Change one task's loss in some steps, the first being 1."""
    taken, losses = 0, task_losses

    def spoiled(*arguments: object) -> tuple[TaskLoss, ...]:
        nonlocal taken
        taken += 1
        sound = losses(*arguments)  # type: ignore[arg-type]
        return tuple(spoil(each) if each.task == task and taken in steps else each for each in sound)

    monkeypatch.setattr(joint, "task_losses", spoiled)


def with_nan(term: str) -> Spoil:
    def spoil(loss: TaskLoss) -> TaskLoss:
        value = loss.terms[term] * torch.nan
        return loss._replace(terms={**loss.terms, term: value}, total=loss.total + value)

    return spoil


def with_nan_gradient(loss: TaskLoss) -> TaskLoss:
    return loss._replace(total=loss.total + (loss.total * 0).sqrt())


def saved(run: Path, name: str = "model") -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoint" / f"{name}.safetensors")


def log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_step_with_a_nan_is_skipped_counted_and_traced_to_its_term(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil_steps(monkeypatch, {2}, "elbo", with_nan("kl_z"))
    train(config)
    assert [line["skipped_steps"] for line in log(config.out)] == [0, 1, 1, 1]
    assert log(config.out)[-1]["skipped_steps/elbo/kl_z"] == 1
    assert "step 2: skipped a step, elbo/kl_z was not finite" in capsys.readouterr().out
    steps = [value for name, value in saved(config.out, "optimizer").items() if name.endswith(".step")]
    assert {float(value) for value in steps} == {3.0}
    for file in ("model", "ema", "optimizer", "balancer", "replay"):
        assert all(value.isfinite().all() for value in saved(config.out, file).values()), file


@pytest.mark.parametrize(("balancer", "cause"), [("rgb", "gradient of predictive"), ("sum", "gradient")])
def test_a_gradient_that_is_not_finite_skips_the_step_too(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, balancer: str, cause: str
) -> None:
    spoil_steps(monkeypatch, {3}, "predictive", with_nan_gradient)
    train(replace(config, balancer=balancer))
    assert log(config.out)[-1][f"skipped_steps/{cause}"] == 1
    assert all(value.isfinite().all() for value in saved(config.out).values())


def test_frames_that_the_model_turns_to_nan_leave_no_trace(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The forward pass itself updates codebook, variance and replay, before any loss is known."""
    perceive, calls = AIME.perceive, 0

    def broken(model: AIME, centred: torch.Tensor, *rest: Any) -> object:
        nonlocal calls
        calls += 1
        return perceive(model, centred * torch.nan if calls == 2 else centred, *rest)

    monkeypatch.setattr(AIME, "perceive", broken)
    train(config)
    assert [line["skipped_steps"] for line in log(config.out)] == [0, 1, 1, 1]
    for file in ("model", "ema", "replay"):
        assert all(value.isfinite().all() for value in saved(config.out, file).values()), file
    remembered = saved(config.out, "replay")["valid"]
    # of four batches of two clips, the second is not remembered
    assert [bool(clip.any()) for clip in remembered[:8]] == [True] * 6 + [False] * 2


def test_twenty_in_a_row_stop_the_training_at_its_last_good_checkpoint(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_steps(monkeypatch, set(range(4, 100)), "elbo", with_nan("reconstruction"))
    with pytest.raises(AimeError, match=r"20 steps in a row.*elbo/reconstruction \(20\).*resume from .*step 3, "):
        train(replace(config, steps=100))
    state = json.loads((config.out / "checkpoint" / "state.json").read_text())
    assert state["step"] == 3
    assert len(log(config.out)) == 23


def test_nineteen_in_a_row_do_not(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_steps(monkeypatch, set(range(2, 21)), "elbo", with_nan("reconstruction"))
    assert train(replace(config, steps=22)).step == 22
    assert log(config.out)[-1]["skipped_steps"] == 19


def test_a_resumed_run_goes_on_counting(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_steps(monkeypatch, {2, 5}, "perceiver", with_nan("vq_commitment"))
    train(config)
    train(replace(config, steps=6, resume=True))
    assert [line["skipped_steps"] for line in log(config.out)] == [0, 1, 1, 1, 2, 2]
    assert log(config.out)[-1]["skipped_steps/perceiver/vq_commitment"] == 2


def test_the_discriminators_skip_a_step_of_theirs(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def spoiled(*arguments: object) -> TaskLoss:
        nonlocal calls
        calls += 1
        loss = discriminator_loss(*arguments)  # type: ignore[arg-type]
        return loss._replace(total=loss.total * torch.nan) if calls == 2 else loss

    monkeypatch.setattr(adversary, "discriminator_loss", spoiled)
    monkeypatch.setattr(AdversaryConfig, "n_critic", 1)
    train(config)
    steps = [value for name, value in saved(config.out, "critic").items() if name.endswith(".step")]
    assert {float(value) for value in steps} == {3.0}
    assert all(value.isfinite().all() for value in saved(config.out, "adversary").values())
    assert log(config.out)[-1]["skipped_critic_steps"] == 1
    assert log(config.out)[-1]["skipped_steps"] == 0  # the model's own were sound
