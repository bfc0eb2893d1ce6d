"""Dynamics fine-tuning: belief and prior learn on fixed latents, and an interrupted phase resumes."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from scipy import integrate, stats
from tests.conftest import synthetic_episode
from tests.models import SIZE
from tests.training.runs import short_run
from torch import Tensor

from aime.data import ClipSampler, open_dataset, write_shard
from aime.data.clips import Targets
from aime.dynamics.latent_dynamics import LatentDynamics
from aime.errors import AimeError
from aime.objectives.ledger import TaskLoss
from aime.objectives.tasks import latent_losses
from aime.objectives.weights import ElboWeights, LossWeights, PredictiveWeights
from aime.perception.state_reader import StateConfig
from aime.primitives.hardware import choose_hardware
from aime.runs.checkpoint_files import read_progress
from aime.runs.schedule import Budget, Progress
from aime.training import dynamics_finetuning, nonfinite, trainer
from aime.training.config import DynamicsFinetuningConfig, TrainConfig
from aime.training.dynamics_finetuning import DynamicsFinetuning
from aime.training.run_directory import is_complete, read_config
from aime.training.trainer import train
from aime.world_model.model import AIME
from aime.world_model.outputs import LatentClips

PARTS = ("prior.", "recurrence.", "expect_context.", "imply_context.", "control.", "initial_latent")
ON_VECTORS = tuple(f"dynamics.{part}" for part in PARTS)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    monkeypatch.setattr(DynamicsFinetuningConfig, "clips", 4)
    return short_run(tmp_path, steps=3, log_every=2, dynamics_finetuning=DynamicsFinetuningConfig(learning_rate=5e-3))


def begin(config: TrainConfig, most_steps: int) -> DynamicsFinetuning:
    """A phase whose latents are cached."""
    torch.manual_seed(0)
    dataset = open_dataset(config.data)
    model, frames = AIME(config.model).eval().requires_grad_(False), int(dataset.lengths.sum())
    phase = DynamicsFinetuning(config, model, choose_hardware("cpu", "fp32"), frames, most_steps)
    phase.cache(dataset, None, Progress(), lambda _: True)
    return phase


def steps(phase: DynamicsFinetuning, number: int) -> Iterator[tuple[TaskLoss, ...]]:
    """The losses of the first steps, of as many."""
    source = phase.source(open_dataset(phase.run.data), 0)
    for step in range(number):
        yield phase.step(next(source), step, step / number)


def tensors(run: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoint" / f"{name}.safetensors")


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_it_learns_to_predict_and_changes_only_what_runs_on_vectors(config: TrainConfig) -> None:
    begun = begin(config, most_steps=60)
    before = {name: value.clone() for name, value in begun.model.state_dict().items()}
    nats = [float(sum(loss.total.detach() for loss in losses)) for losses in steps(begun, 60)]
    assert sum(nats[-10:]) < sum(nats[:10]) - 10 * 5, "at least 5 nats a frame"
    begun.finish()
    found = changed(before, begun.model.state_dict())
    assert found and all(name.startswith(ON_VECTORS) for name in found)
    for part in ON_VECTORS:
        assert any(name.startswith(part) for name in found), part
    assert not begun.model.training and not any(weight.requires_grad for weight in begun.model.parameters())


def test_the_sticks_stay_near_their_prior_while_latents_are_learned(config: TrainConfig) -> None:
    """The likelihood of few latents alone drives the divergence up; with its weight it is paid for as in training."""
    nats = {}
    for weight in (1e-9, 0.1):
        elbo = replace(config.weights.elbo, kl_hierarchical=weight)
        begun = begin(replace(config, weights=replace(config.weights, elbo=elbo)), most_steps=60)
        terms = [dict(pair for loss in losses for pair in loss.named()) for losses in steps(begun, 60)]
        nats[weight] = [float(each["elbo/kl_hierarchical"]) for each in terms]
    assert nats[0.1][-1] < 0.7 * nats[1e-9][-1]


def mixture_nats(a: np.ndarray, b: np.ndarray, shape: float, rate: float) -> float:
    """E_q(α) KL(Kumaraswamy(a, b) ‖ Beta(1, α)) summed over the sticks, and KL(Gamma ‖ Gamma(1, 1)), by quadrature."""
    alpha = stats.gamma(shape, scale=1 / rate)
    mean, mean_log = alpha.mean(), alpha.expect(np.log, epsabs=1e-10)
    nats = alpha.expect(lambda x: alpha.logpdf(x) - stats.gamma(1).logpdf(x), epsabs=1e-10)
    for each_a, each_b in zip(a, b, strict=True):

        def integrand(u: float, a: float = each_a, b: float = each_b) -> float:
            power = -np.expm1(np.log1p(-u) / b)  # v^a, for u uniform
            log_v = np.log(power) / a
            density = np.log(a * b) + (a - 1) * log_v + (b - 1) * np.log1p(-u) / b
            return float(density - mean_log - (mean - 1) * np.log(-np.expm1(log_v)))

        nats += integrate.quad(integrand, 0, 1, epsabs=1e-9, limit=200)[0]
    return float(nats)


def test_what_the_mixture_costs_is_a_term_with_the_weights_of_training(config: TrainConfig) -> None:
    begun = begin(config, most_steps=2)
    drawn = begun.cached.draw()
    assert drawn is not None
    first = Targets(*(field[:1] for field in drawn.targets))
    latents, contexts, actions = (field[:1] for field in drawn[:3])
    clips = LatentClips(latents, contexts, actions, first)
    model, weights = begun.model.eval(), LossWeights(elbo=ElboWeights(0, 0, 0.3, 0, 0.7, 0, 0, 0, 0))
    model.requires_grad_(True)
    loss, _ = latent_losses(model.dynamics, clips, weights)
    named = dict(loss.named())
    assert named.keys() == {"elbo/kl_hierarchical", "elbo/entropy"}
    prior = model.dynamics.scan(clips.latents, clips.contexts, clips.actions).prior
    rows = [each.detach().double()[clips.valid].exp().numpy() for each in (*prior.sticks, *prior.concentration)]
    every = np.mean([mixture_nats(*each) for each in zip(*rows, strict=True)])
    assert float(named["elbo/kl_hierarchical"]) == pytest.approx(every, rel=1e-3)
    shares = prior.mixture.weights.detach().double()[clips.valid].mean(0)
    entropy = float(torch.special.entr(shares).sum())
    assert float(named["elbo/entropy"]) == pytest.approx(-entropy, rel=1e-5)
    assert float(loss.total.detach()) == pytest.approx(0.3 * every - 0.7 * entropy, rel=1e-3)


def test_states_are_withheld_and_still_predicted(config: TrainConfig) -> None:
    state = StateConfig(width=3, withheld=1.0)
    observing = replace(config, model=replace(config.model, state=state), batch=200, observe_state=True)
    begun = begin(observing, most_steps=1)
    clips = ClipSampler(open_dataset(config.data), 200, config.length, seed=5).sample(0)
    with torch.no_grad():
        assert begun.model.state_reader is not None and begun.model.dynamics.state_head is not None
        for weight in (*begun.model.state_reader.parameters(), *begun.model.dynamics.state_head.parameters()):
            weight.add_(0.3 * torch.randn_like(weight))
    known, hidden = (begun._encode(clips, share)[1] for share in (0.0, 1.0))
    blind = begun._encode(clips._replace(states=torch.full((200, config.length, 3), torch.nan)), 0.0)[1]
    unseen = torch.isclose(hidden.contexts, blind.contexts).all(-1)
    # half of the clips throughout, and a random span of half of all clips
    assert unseen.all(1).float().mean() == pytest.approx(0.5, abs=0.12)
    assert 0.05 < (unseen.any(1) & ~unseen.all(1)).float().mean() < 0.5
    assert torch.isclose(hidden.contexts, known.contexts).all(-1)[~unseen].all()
    torch.testing.assert_close(hidden.targets.states, known.targets.states, equal_nan=True)
    assert hidden.targets.states.isfinite().any()


def test_it_caches_no_more_than_there_is_or_than_it_can_use(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 3 times 80 frames of data are 40 clips of 6 frames, and 60 passes over them in batches of 4 are 600 steps
    assert (begin(config, 1000).batches, begin(config, 1000).steps) == (20, 600)
    assert (begin(config, 2).batches, begin(config, 2).steps) == (4, 2)
    monkeypatch.setattr(DynamicsFinetuningConfig, "frames", 12)
    monkeypatch.setattr(DynamicsFinetuningConfig, "passes", 2.0)
    assert (begin(config, 1000).batches, begin(config, 1000).steps) == (1, 1)


def test_episodes_left_out_tell_how_wide_the_prior_is(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(tmp_path / "forty.h5", [synthetic_episode(8, seed, size=SIZE) for seed in range(40)])
    forty = replace(config, data=str(tmp_path / "forty.h5"))
    train(forty)
    monkeypatch.setattr(DynamicsFinetuningConfig, "left_out", 0.0)
    train(replace(forty, out=tmp_path / "all"))
    logs = [(tmp_path / run / "dynamics_finetuning.jsonl").read_text().splitlines() for run in ("all", "run")]
    found = [[json.loads(line) for line in lines] for lines in logs]
    assert not any(name.startswith("calibration/") for line in found[0] for name in line)
    fit = found[1][-1]
    assert fit["step"] == 3
    assert 0 < fit["calibration/energy"] < fit["calibration/energy_before"]
    assert fit["calibration/shift"] != 0


def test_few_episodes_are_all_learned_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DynamicsFinetuningConfig, "left_out", 0.5)
    config = DynamicsFinetuningConfig()
    for episodes, left in ((7, 4), (6, 0)):
        write_shard(tmp_path / f"{episodes}.h5", [synthetic_episode(8, seed) for seed in range(episodes)])
        learned, left_out = config.divide(open_dataset(tmp_path / f"{episodes}.h5"))
        assert (learned.episodes, 0 if left_out is None else left_out.episodes) == (episodes - left, left)


def test_a_step_that_is_not_finite_changes_nothing(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = begin(config, most_steps=2)
    before = {name: value.clone() for name, value in begun.model.state_dict().items()}
    sound = latent_losses

    def broken(
        dynamics: LatentDynamics, clips: LatentClips, weights: LossWeights, elsewhere: Tensor
    ) -> tuple[TaskLoss, ...]:
        first, *others = sound(dynamics, clips, weights, elsewhere)
        return (first._replace(total=first.total * torch.nan), *others)

    monkeypatch.setattr(dynamics_finetuning, "latent_losses", broken)
    list(steps(begun, 1))
    assert not changed(before, begun.model.state_dict())
    monkeypatch.setattr(dynamics_finetuning, "latent_losses", sound)
    list(steps(begun, 1))
    assert changed(before, begun.model.state_dict())


def test_joint_learning_goes_on_as_if_nothing_had_been_fine_tuned(config: TrainConfig) -> None:
    never = replace(config, out=config.out.with_name("never"), dynamics_finetuning=DynamicsFinetuningConfig(share=0.0))
    train(config)
    train(never)
    assert not (never.out / "checkpoint" / "before_finetuning.safetensors").exists()
    assert not (never.out / "dynamics_finetuning.jsonl").exists()
    lines = [json.loads(line) for line in (config.out / "dynamics_finetuning.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    terms = {"one_step_latent", "expected_context", "kl_hierarchical", "entropy"}
    assert lines[0].keys() >= {f"dynamics_finetuning/{term}" for term in terms}
    assert not changed(tensors(config.out, "before_finetuning"), tensors(never.out, "ema"))
    finetuned = tensors(config.out, "ema")
    found = changed(tensors(config.out, "before_finetuning"), finetuned)
    assert found and all(name.startswith(ON_VECTORS) for name in found)
    assert not changed(finetuned, dict(AIME.from_pretrained(config.out).state_dict()))

    train(replace(config, resume=True))
    assert not changed(finetuned, tensors(config.out, "ema")), "what is fine-tuned is not fine-tuned again"
    assert (config.out / "checkpoint" / "before_finetuning.safetensors").exists()

    for each in (config, never):
        train(replace(each, resume=True, steps=5))
    assert not changed(tensors(config.out, "model"), tensors(never.out, "model"))
    assert not changed(tensors(config.out, "before_finetuning"), tensors(never.out, "ema"))


def test_a_run_that_is_stopped_while_it_caches_does_so_again(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(DynamicsFinetuning, "add_for_training", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert train(config).interrupted
    assert (read_progress(config.out).phase, is_complete(config)) == ("dynamics_finetuning", False)
    assert not (config.out / "checkpoint" / "finetuning_cache.safetensors").exists()
    assert train(replace(config, resume=True)).step == 3
    assert is_complete(config)
    assert (config.out / "checkpoint" / "before_finetuning.safetensors").exists()


@pytest.mark.parametrize("saved_by", ["signal", "checkpoint"])
def test_a_run_that_is_stopped_in_the_midst_ends_at_the_same_bits(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, saved_by: str
) -> None:
    """By a signal, after which it is saved; or by a kill, after which the last periodic checkpoint is there."""
    whole = replace(config, steps=4, out=config.out.with_name("whole"))
    stopped = replace(config, steps=4, checkpoint_every=2)
    train(whole)
    original = DynamicsFinetuning.step

    def stopping(phase: DynamicsFinetuning, batches: list[LatentClips], step: int, share: float) -> Any:
        if step == 3 and saved_by == "checkpoint":
            raise KeyboardInterrupt
        if step == 1 and saved_by == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        return original(phase, batches, step, share)

    with monkeypatch.context() as patch:
        patch.setattr(DynamicsFinetuning, "step", stopping)
        if saved_by == "signal":
            assert train(stopped).interrupted
        else:
            with pytest.raises(KeyboardInterrupt):
                train(stopped)
    at = read_progress(stopped.out)
    assert (at.step, at.phase, at.phase_step) == (4, "dynamics_finetuning", 2)
    assert not changed(tensors(stopped.out, "ema"), tensors(whole.out, "before_finetuning")), (
        "as joint learning left it"
    )
    train(replace(stopped, resume=True))
    names = sorted(path.name for path in (whole.out / "checkpoint").iterdir())
    assert names == sorted(path.name for path in (stopped.out / "checkpoint").iterdir())
    for name in ("ema", "before_finetuning", "model", "optimizer", "replay"):
        assert not changed(tensors(whole.out, name), tensors(stopped.out, name)), name
    states = [json.loads((run.out / "checkpoint" / "state.json").read_text()) for run in (whole, stopped)]
    assert states[0]["cpu_random_state"] == states[1]["cpu_random_state"]
    found = [figures(run.out) for run in (whole, stopped)]
    assert found[0] == found[1] and [line["step"] for line in found[0]] == [1, 2, 4]


def figures(run: Path) -> list[dict[str, float]]:
    """The phase's log without the time."""
    lines = [json.loads(line) for line in (run / "dynamics_finetuning.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def test_steps_that_are_all_skipped_stop_the_phase(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = latent_losses

    def broken(*arguments: Any) -> tuple[TaskLoss, ...]:
        return tuple(loss._replace(total=loss.total * torch.nan) for loss in sound(*arguments))

    monkeypatch.setattr(dynamics_finetuning, "latent_losses", broken)
    monkeypatch.setattr(nonfinite, "MAX_CONSECUTIVE_SKIPS", 3)
    with pytest.raises(AimeError, match=r"3 steps in a row.*lower dynamics_finetuning\.learning_rate .* step 3, with"):
        train(config)


def test_checkpoints_of_before_are_read(config: TrainConfig) -> None:
    """With the names that files, fields and roles had."""
    train(config)
    checkpoint = config.out / "checkpoint"
    (checkpoint / "SHA256SUMS").unlink()
    for new, old in (("before_finetuning", "unsettled"), ("nonfinite", "guard")):
        (checkpoint / f"{new}.safetensors").rename(checkpoint / f"{old}.safetensors")
    state = json.loads((checkpoint / "state.json").read_text())
    old_state = {name: value for name, value in state.items() if not name.startswith("phase")}
    (checkpoint / "state.json").write_text(json.dumps(old_state))
    manifest = (config.out / "manifest.json").read_text()
    assert '"finetuned": [' in manifest
    (config.out / "manifest.json").write_text(manifest.replace('"finetuned"', '"settled"'))
    plain = yaml.safe_load((config.out / "config.yaml").read_text())
    settings = read_config(config.out)
    plain["train"]["settle"] = {**plain["train"].pop("dynamics_finetuning"), "moved": 0.5}
    (config.out / "config.yaml").write_text(yaml.safe_dump(plain))
    assert read_config(config.out) == settings
    assert is_complete(config)
    finetuned, before = tensors(config.out, "ema"), tensors(config.out, "unsettled")
    train(replace(config, resume=True))
    assert not changed(finetuned, tensors(config.out, "ema"))
    assert not changed(before, tensors(config.out, "before_finetuning"))
    assert json.loads((config.out / "manifest.json").read_text()) == json.loads(manifest)


def test_a_run_that_predicts_no_latent_is_not_fine_tuned(config: TrainConfig) -> None:
    config = replace(config, weights=replace(config.weights, predictive=PredictiveWeights(*[0.0] * 8)))
    assert config.finetuning_share == 0
    train(config)
    assert not (config.out / "dynamics_finetuning.jsonl").exists()


def test_minutes_are_shared_and_steps_are_not() -> None:
    assert Budget(steps=None, minutes=10.0).without(0.2) == Budget(steps=None, minutes=8.0)
    assert Budget(steps=10, minutes=None).without(0.2) == Budget(steps=10, minutes=None)
    assert Budget(steps=None, minutes=1.0).seconds_left(45.0) == 15.0
    assert Budget(steps=None, minutes=1.0).seconds_left(61.0) == 0.0
    assert Budget(steps=10, minutes=None).seconds_left(1e9) == float("inf")


def test_a_run_of_minutes_ends_with_them(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: 0.5 * next(readings))
    monkeypatch.setattr(trainer, "time", clock)
    result = train(replace(config, steps=None, minutes=20 / 60))
    assert (config.out / "dynamics_finetuning.jsonl").exists()
    assert result.step == 32, "fine-tuning takes 0.2 of the minutes"
    assert 20.0 <= result.seconds <= 21.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 1.0}, r"dynamics_finetuning.share is 1.0; expected a share in \[0, 1\)"),
        ({"learning_rate": 0.0}, "dynamics_finetuning.learning_rate is 0.0; expected a positive number"),
    ],
)
def test_numbers_out_of_range_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(AimeError, match=message):
        DynamicsFinetuningConfig(**change)


def test_the_rate_falls_over_the_steps_and_not_while_they_wait(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings, shares = itertools.count(), []
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: 0.1 * next(readings)))
    step = DynamicsFinetuning.step

    def counted(phase: DynamicsFinetuning, batches: list[LatentClips], number: int, share: float) -> Any:
        shares.append(share)
        return step(phase, batches, number, share)

    monkeypatch.setattr(DynamicsFinetuning, "step", counted)
    train(replace(config, steps=None, minutes=6 / 60))
    assert shares[0] < 0.2, "a third of the time went into caching"
    assert shares == sorted(shares) and 0.8 < shares[-1] < 1
