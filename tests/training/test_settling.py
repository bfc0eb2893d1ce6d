"""Settling: a run's last act teaches belief and prior on fixed latents, and leaves no trace in the run itself."""

from __future__ import annotations

import itertools
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import integrate, stats
from tests.conftest import synthetic_episode
from tests.models import SIZE
from tests.training.runs import short_run
from torch import Tensor

from aime.data import ClipSampler, open_dataset, write_shard
from aime.dynamics.latent_dynamics import LatentDynamics
from aime.errors import AimeError
from aime.objectives.ledger import TaskLoss
from aime.objectives.predictive import latent_losses
from aime.objectives.weights import ElboWeights, LossWeights, PredictiveWeights
from aime.perception.state_reader import StateConfig
from aime.training import settling, trainer
from aime.training.config import TrainConfig
from aime.training.hardware import choose_hardware
from aime.training.logbook import Logbook
from aime.training.schedule import Budget
from aime.training.settling import SettleConfig, Settling
from aime.training.trainer import train
from aime.world_model.model import AIME
from aime.world_model.outputs import LatentClips, Outcomes

PARTS = ("prior.", "recurrence.", "expect_context.", "imply_context.", "control.", "initial_latent")
ON_VECTORS = tuple(f"dynamics.{part}" for part in PARTS)


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return short_run(tmp_path, steps=3, log_every=2, settle=SettleConfig(clips=4, learning_rate=5e-3))


def begin(config: TrainConfig, most_steps: int) -> Settling:
    torch.manual_seed(0)
    dataset = open_dataset(config.data)
    model, frames = AIME(config.model).eval().requires_grad_(False), int(dataset.lengths.sum())
    begun = Settling(config, model, choose_hardware("cpu", "fp32"), frames, most_steps)
    sampler = ClipSampler(dataset, config.batch, config.length, config.seed)
    for number in range(begun.batches):
        begun.perceive(sampler.sample(number))
    return begun


def tensors(run: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoint" / f"{name}.safetensors")


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_it_learns_to_predict_and_changes_only_what_runs_on_vectors(config: TrainConfig) -> None:
    begun = begin(config, most_steps=60)
    before = {name: value.clone() for name, value in begun.model.state_dict().items()}
    nats = [float(sum(loss.total.detach() for loss in begun.step(step / 60))) for step in range(60)]
    assert sum(nats[-10:]) < sum(nats[:10]) - 10 * 5, "at least 5 nats a frame"
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
        terms = [dict(pair for loss in begun.step(step / 60) for pair in loss.named()) for step in range(60)]
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


def test_what_the_mixture_costs_is_a_term_of_settling_with_the_weights_of_training(config: TrainConfig) -> None:
    begun = begin(config, most_steps=2)
    drawn = begun._memory.draw()
    assert drawn is not None
    first = Outcomes(*(field[:1] for field in drawn.outcomes))
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


def test_states_are_withheld_in_settling_and_still_predicted(config: TrainConfig) -> None:
    state = StateConfig(width=3, hidden=16, withheld=1.0)
    observing = replace(config, model=replace(config.model, state=state), batch=200, observe_state=True)
    begun = begin(observing, most_steps=1)
    clips = ClipSampler(open_dataset(config.data), 200, config.length, seed=5).sample(0)
    with torch.no_grad():
        assert begun.model.state_reader is not None and begun.model.dynamics.state_head is not None
        for weight in (*begun.model.state_reader.parameters(), *begun.model.dynamics.state_head.parameters()):
            weight.add_(0.3 * torch.randn_like(weight))
    known, hidden = (begun._see(clips, share)[1] for share in (0.0, 1.0))
    blind = begun._see(clips._replace(states=torch.full((200, config.length, 3), torch.nan)), 0.0)[1]
    unseen = torch.isclose(hidden.contexts, blind.contexts).all(-1)
    # half of the clips throughout, and a random span of half of all clips
    assert unseen.all(1).float().mean() == pytest.approx(0.5, abs=0.12)
    assert 0.05 < (unseen.any(1) & ~unseen.all(1)).float().mean() < 0.5
    assert torch.isclose(hidden.contexts, known.contexts).all(-1)[~unseen].all()
    torch.testing.assert_close(hidden.outcomes.states, known.outcomes.states, equal_nan=True)
    assert hidden.outcomes.states.isfinite().any()


def test_it_perceives_no_more_than_there_is_or_than_it_can_use(config: TrainConfig) -> None:
    # 3 times 80 frames of data are 40 clips of 6 frames, and 60 passes over them in batches of 4 are 600 steps
    assert (begin(config, 1000).batches, begin(config, 1000).steps) == (20, 600)
    assert (begin(config, 2).batches, begin(config, 2).steps) == (4, 2)
    few = replace(config, settle=replace(config.settle, frames=12, passes=2.0))
    assert (begin(few, 1000).batches, begin(few, 1000).steps) == (1, 1)


def test_episodes_left_out_tell_how_wide_the_prior_is(config: TrainConfig, tmp_path: Path) -> None:
    write_shard(tmp_path / "forty.h5", [synthetic_episode(8, seed, size=SIZE) for seed in range(40)])
    forty = replace(config, data=str(tmp_path / "forty.h5"))
    train(replace(forty, out=tmp_path / "all", settle=replace(config.settle, left_out=0.0)))
    train(forty)
    logs = [(tmp_path / run / "settling.jsonl").read_text().splitlines() for run in ("all", "run")]
    found = [[json.loads(line) for line in lines] for lines in logs]
    assert not any(name.startswith("calibration/") for line in found[0] for name in line)
    fit = found[1][-1]
    assert fit["step"] == 3
    assert 0 < fit["calibration/energy"] < fit["calibration/energy_before"]
    assert fit["calibration/shift"] != 0


def test_few_episodes_are_all_learned_from(tmp_path: Path) -> None:
    settle = SettleConfig(left_out=0.5)
    for episodes, left in ((7, 4), (6, 0)):
        write_shard(tmp_path / f"{episodes}.h5", [synthetic_episode(8, seed) for seed in range(episodes)])
        learned, left_out = settle.divide(open_dataset(tmp_path / f"{episodes}.h5"))
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

    monkeypatch.setattr(settling, "latent_losses", broken)
    begun.step(0.0)
    assert not changed(before, begun.model.state_dict())
    monkeypatch.setattr(settling, "latent_losses", sound)
    begun.step(0.5)
    assert changed(before, begun.model.state_dict())


def test_a_run_settles_and_goes_on_as_if_it_had_not(config: TrainConfig) -> None:
    never = replace(config, out=config.out.with_name("never"), settle=SettleConfig(share=0.0))
    train(config)
    train(never)
    assert not (never.out / "checkpoint" / "unsettled.safetensors").exists()
    assert not (never.out / "settling.jsonl").exists()
    lines = [json.loads(line) for line in (config.out / "settling.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    terms = {"one_step_latent", "expected_context", "kl_hierarchical", "entropy"}
    assert lines[0].keys() >= {f"settling/{term}" for term in terms}
    assert not changed(tensors(config.out, "unsettled"), tensors(never.out, "ema"))
    settled = tensors(config.out, "ema")
    found = changed(tensors(config.out, "unsettled"), settled)
    assert found and all(name.startswith(ON_VECTORS) for name in found)
    assert not changed(settled, dict(AIME.from_pretrained(config.out).state_dict()))

    train(replace(config, resume=True))
    assert not changed(settled, tensors(config.out, "ema")), "what has settled does not settle again"
    assert (config.out / "checkpoint" / "unsettled.safetensors").exists()

    for each in (config, never):
        train(replace(each, resume=True, steps=5))
    assert not changed(tensors(config.out, "model"), tensors(never.out, "model"))
    assert not changed(tensors(config.out, "unsettled"), tensors(never.out, "ema"))


def test_what_is_interrupted_has_not_settled_and_does_so_when_it_goes_on(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Logbook, "log_settling", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert train(config).interrupted
    assert not (config.out / "checkpoint" / "unsettled.safetensors").exists()
    assert train(replace(config, resume=True)).step == 3
    assert (config.out / "checkpoint" / "unsettled.safetensors").exists()


def test_a_run_that_predicts_no_latent_does_not_settle(config: TrainConfig) -> None:
    config = replace(config, weights=replace(config.weights, predictive=PredictiveWeights(*[0.0] * 8)))
    assert config.settling_share == 0
    train(config)
    assert not (config.out / "settling.jsonl").exists()


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
    assert (config.out / "settling.jsonl").exists()
    assert result.step == 32, "settling takes 0.2 of the minutes"
    assert 20.0 <= result.seconds <= 21.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 1.0}, r"settle.share is 1.0; expected a share in \[0, 1\)"),
        ({"frames": 0}, "settle.frames is 0; expected a positive number"),
        ({"passes": -1.0}, "settle.passes is -1.0; expected a positive number"),
        ({"left_out": 1.0}, r"settle.left_out is 1.0; expected a share in \[0, 1\)"),
        ({"weight_decay": -0.1}, "settle.weight_decay is -0.1; expected 0 or more"),
    ],
)
def test_numbers_out_of_range_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(AimeError, match=message):
        SettleConfig(**change)  # type: ignore[arg-type]


def test_the_rate_falls_over_the_steps_and_not_while_they_wait(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings, shares = itertools.count(), []
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: 0.1 * next(readings)))
    step = Settling.step

    def counted(settling: Settling, share: float) -> tuple[TaskLoss, ...]:
        shares.append(share)
        return step(settling, share)

    monkeypatch.setattr(Settling, "step", counted)
    train(replace(config, steps=None, minutes=6 / 60))
    assert shares[0] < 0.2, "a third of the time went into perceiving"
    assert shares == sorted(shares) and 0.8 < shares[-1] < 1
