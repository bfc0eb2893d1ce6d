"""Every pillar and task can be switched off, and the remaining model trains, steps, predicts and is saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Set
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from tests.conftest import synthetic_episode
from tests.models import SIZE, small_config, targets
from torch import Tensor

from aime.benchmarking.ablation.variants import VARIANTS, complete
from aime.data import write_shard
from aime.dynamics.heads.config import ControlConfig
from aime.errors import AimeError
from aime.inference.evaluate import evaluate_run
from aime.inference.report import write_report
from aime.inference.request import EvaluationRequest
from aime.objectives.adversarial import AdversaryConfig
from aime.objectives.tasks import task_losses
from aime.objectives.weights import ElboWeights, LossWeights, OvershootConfig, PerceiverWeights, PredictiveWeights
from aime.perception.state_reader import StateConfig
from aime.training.config import TrainConfig
from aime.training.optimizers import OptimizerConfig
from aime.training.trainer import train
from aime.world_model.model import AIME

B, T = 2, 6
STATE = 3
Switch = Callable[[TrainConfig], TrainConfig]


class Case(NamedTuple):
    """An off switch, and what it takes away from the complete model."""

    switch: Switch
    terms: Set[str] = frozenset()
    """What vanishes from the log."""
    unreached: Set[str] = frozenset()
    """Parameters, by how their names begin, that are there and get no gradient."""
    absent: Set[str] = frozenset()
    """Parameters, by how their names begin, that are not there."""
    balanced: Set[str] = frozenset(("elbo", "perceiver", "predictive", "adversarial"))
    """Tasks whose gradients are balanced."""


def weighted(**tasks: object) -> Switch:
    return lambda config: replace(config, weights=replace(config.weights, **tasks))  # type: ignore[arg-type]


def all_terms(task: type, name: str) -> set[str]:
    return {f"{name}/{field.name}" for field in fields(task)}


def zeros(task: type) -> object:
    return task(**{field.name: 0.0 for field in fields(task)})


SCHEMA = {f"predictive/{term}" for term in ("attention_dynamics", "slot_overlap", "slot_reconstruction")}
ATTENTION = {"elbo/kl_attention", *SCHEMA}
MAP_GAINS = {"decoder.gains.", "perceiver.attention_gain"}  # of the difference of a map from a uniform one
CONTEXT = {"predictive/expected_context", "predictive/implied_context"}
RECONSTRUCTIONS = {"perceiver/tokenizer_reconstruction", "perceiver/token_reconstruction"}
OVERSHOOTING = {"predictive/overshoot_latent", "predictive/overshoot_frames"}
ADVERSARIAL = {f"adversarial/{term}" for term in ("image_generator", "temporal_generator", "feature_matching")}
DISCRIMINATOR = {"discriminator/image", "discriminator/temporal"}

EVERYTHING = {
    *all_terms(ElboWeights, "elbo"),
    *all_terms(PerceiverWeights, "perceiver"),
    *all_terms(PredictiveWeights, "predictive"),
    *ADVERSARIAL,
    *DISCRIMINATOR,
}

CASES = {
    "complete": Case(VARIANTS["complete"].switch),
    "uniform-attention": Case(VARIANTS["uniform-attention"].switch, ATTENTION, MAP_GAINS, absent={"attention."}),
    "no-context": Case(
        VARIANTS["no-context"].switch,
        {*CONTEXT, *RECONSTRUCTIONS},
        unreached={"tokenizer.up."},
        absent={
            "perceiver.",
            "dynamics.expect_context.",
            "dynamics.imply_context.",
            "encoder.context.",
            "state_reader.",
        },
    ),
    "single-gaussian": Case(VARIANTS["single-gaussian"].switch, {"elbo/kl_hierarchical", "elbo/entropy"}),
    "no-adversary": Case(
        VARIANTS["no-adversary"].switch,
        {*ADVERSARIAL, *DISCRIMINATOR},
        balanced={"elbo", "perceiver", "predictive"},
    ),
    "sum": Case(VARIANTS["sum"].switch, balanced=set()),
    "no-control": Case(
        lambda config: replace(config, model=replace(config.model, control=ControlConfig(kind="none"))),
        {"elbo/reward", "elbo/continuation", "predictive/action", "predictive/inverse_dynamics"},
        absent={"dynamics.control."},
    ),
    "no-state": Case(
        lambda config: replace(config, model=replace(config.model, state=StateConfig())),
        {"elbo/state_nll"},
        absent={"state_reader.", "dynamics.state_head."},
    ),
    "no-overshooting": Case(VARIANTS["no-overshooting"].switch, OVERSHOOTING),
    "spine": Case(
        VARIANTS["spine"].switch,
        {*ATTENTION, *ADVERSARIAL, *DISCRIMINATOR},
        MAP_GAINS,
        absent={"attention."},
        balanced=set(),
    ),
    "no-predictive-task": Case(
        weighted(predictive=zeros(PredictiveWeights)),
        all_terms(PredictiveWeights, "predictive"),
        unreached={
            "attention.bottom_up.decode.",
            "attention.bottom_up.broadcast",
            "dynamics.control.action_schema.",
            "dynamics.imply_context.",
        },
        balanced={"elbo", "perceiver", "adversarial"},
    ),
    "no-perceiver-task": Case(
        weighted(perceiver=zeros(PerceiverWeights)),
        all_terms(PerceiverWeights, "perceiver"),
        unreached={"tokenizer.up.", "perceiver.token_"},
        balanced={"elbo", "predictive", "adversarial"},
    ),
    "no-muon": Case(lambda config: replace(config, optimizer=replace(config.optimizer, kind="adamw"))),
}

switches = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("switches")
    write_shard(directory / "000.h5", [synthetic_episode(14, seed, size=SIZE) for seed in range(4)])
    return directory


@pytest.fixture
def config(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """Everything on, heard from the second step on."""
    for name, value in {"n_critic": 1, "warmup": 0.0, "ramp": 1.0}.items():
        monkeypatch.setattr(AdversaryConfig, name, value)
    monkeypatch.setattr(OptimizerConfig, "warmup", 1)
    start = TrainConfig(
        data=str(data),
        out=tmp_path / "run",
        model=replace(small_config(), state=StateConfig(width=STATE)),
        steps=2,
        batch=B,
        length=T,
        log_every=1,
        held_out=0.5,
        device="cpu",
        precision="fp32",
        overshoot=OvershootConfig(steps=3),
        pictures=False,
    )
    return complete(start)


def begins(name: str, prefixes: Set[str]) -> bool:
    return any(name.startswith(prefix) for prefix in prefixes)


@switches
def test_it_trains_and_goes_on_and_logs_no_term_that_is_off(case: Case, config: TrainConfig) -> None:
    variant = case.switch(config)
    train(replace(variant, steps=1))
    assert train(replace(variant, resume=True)).step == 2
    logged = json.loads((config.out / "metrics.jsonl").read_text().splitlines()[-1])
    assert EVERYTHING - logged.keys() == case.terms
    assert {name.removeprefix("balance/norm_") for name in logged if "/norm_" in name} == case.balanced
    assert all(value is not None for value in logged.values())


@pytest.mark.parametrize("name", ["uniform-attention", "no-context", "single-gaussian"])
def test_without_a_part_a_run_is_saved_evaluated_and_reported(name: str, config: TrainConfig) -> None:
    train(CASES[name].switch(config))
    model = AIME.from_pretrained(config.out)
    assert not [each for each, _ in model.named_parameters() if begins(each, CASES[name].absent)]
    request = EvaluationRequest(context=3, horizon=4, samples=2, clips=2, device="cpu")
    evaluation = evaluate_run(config.out, request)
    assert evaluation.effective_components == pytest.approx(1) or name != "single-gaussian"
    assert evaluation.reconstruction.psnr > 5
    assert write_report(config.out, request).is_file()


@switches
def test_what_is_left_learns_and_what_is_off_gets_no_gradient(case: Case, config: TrainConfig) -> None:
    variant = case.switch(config)
    torch.manual_seed(0)
    model = AIME(replace(variant.model, context_dropout=1.0)).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    valid = torch.ones(B, T, dtype=torch.bool)
    frames, actions = torch.rand(B, T, 3, SIZE, SIZE), torch.rand(B, T, 2)
    missing = valid.clone()
    missing[:, 2] = False
    states = torch.randn(B, T, model.config.state.width)
    states[:, 2] = torch.nan
    output = model.forward_sequence(frames, actions, missing, states)
    tasks = task_losses(model, output, frames, targets(valid, states), variant.weights, variant.overshoot)
    torch.stack([task.total for task in tasks if not task.off]).sum().backward()
    unreached = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert unreached == {name for name, _ in model.named_parameters() if begins(name, case.unreached)}


@pytest.fixture(params=[case for name, case in CASES.items() if name != "sum"])
def model(request: pytest.FixtureRequest, config: TrainConfig) -> AIME:
    """In float64, every parameter away from its start."""
    torch.manual_seed(0)
    model = AIME(request.param.switch(config).model).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@torch.no_grad()
def test_stepping_is_the_parallel_pass_and_imagining_is_predicting(model: AIME) -> None:
    generator = torch.Generator().manual_seed(1)
    frames = torch.rand(B, T, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)
    actions = torch.rand(B, T, 2, generator=generator, dtype=torch.float64) * 2 - 1
    output = model.forward_sequence(frames, actions)
    state = model.initial_state(B)
    for t in range(3):
        state, seen = model.observe(state, frames[:, t], actions[:, t - 1])
        pairs: dict[str, tuple[Tensor, Tensor]] = {
            "latent": (seen.latent, output.latents[:, t]),
            "context": (seen.context, output.contexts[:, t]),
            "belief": (state.carry.belief, output.beliefs[:, t]),
            "prior means": (seen.prior.mixture.means, output.prior.mixture.means[:, t]),
            "attention": (seen.attention, output.attention.fused[:, t]),
        }
        for name, (stepped, parallel) in pairs.items():
            assert torch.allclose(stepped, parallel, rtol=1e-9, atol=1e-9), f"{name}, frame {t}"
    predicted = model.predict_future(frames[:, :3], actions)
    for step in range(3):
        state, imagined = model.imagine(state, actions[:, 2 + step])
        torch.testing.assert_close(imagined.latent, predicted.latents[:, step], rtol=1e-9, atol=1e-9)
    assert model.surprise(frames, actions).isfinite().all()


def test_a_reset_forgets_without_a_context_too(config: TrainConfig) -> None:
    model = AIME(CASES["no-context"].switch(config).model).eval()
    frames, actions = torch.rand(B, 2, 3, SIZE, SIZE), torch.rand(B, 2)
    state, first = model.observe(model.initial_state(B), frames[:, 0], actions)
    state, _ = model.observe(state, frames[:, 1], actions)
    _, again = model.observe(state, frames[:, 0], actions, torch.ones(B, dtype=torch.bool))
    torch.testing.assert_close(again.latent, first.latent)


def test_tasks_that_are_off_imagine_nothing(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    model = AIME(config.model).train()
    frames, valid = torch.rand(B, T, 3, SIZE, SIZE), torch.ones(B, T, dtype=torch.bool)
    output = model.forward_sequence(frames)
    called: list[str] = []
    used: list[tuple[torch.nn.Module, str]] = [(model, name) for name in ("draw", "redraw")]
    used += [(model.dynamics, name) for name in ("scan", "step", "rollout", "behave")]
    for owner, name in used:
        monkeypatch.setattr(owner, name, lambda *_, name=name: called.append(name))
    off = LossWeights(perceiver=zeros(PerceiverWeights), predictive=zeros(PredictiveWeights))  # type: ignore[arg-type]
    tasks = task_losses(model, output, frames, targets(valid, torch.zeros(B, T, STATE)), off, config.overshoot)
    assert [task.task for task in tasks if task.off] == ["perceiver", "predictive"]
    assert called == []


def test_a_run_without_any_task_is_refused(config: TrainConfig) -> None:
    off = weighted(elbo=zeros(ElboWeights), perceiver=zeros(PerceiverWeights), predictive=zeros(PredictiveWeights))
    with pytest.raises(AimeError, match="elbo, perceiver and predictive are all 0"):
        off(config)
