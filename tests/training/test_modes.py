"""Differences between training mode and evaluation mode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import synthetic_episode
from tests.models import SIZE, small_config
from torch import Tensor

from aime.data import write_shard
from aime.inference.evaluate import evaluate_run
from aime.inference.request import EvaluationRequest
from aime.objectives import elbo, perceiver, predictive
from aime.objectives.adversarial import AdversaryConfig
from aime.objectives.predictive import overlap_of
from aime.objectives.weights import OvershootConfig
from aime.primitives.transformer import CausalTimeAttention, MultiHeadAttention
from aime.representation.discriminators import Discriminators
from aime.training.config import TrainConfig
from aime.training.trainer import train
from aime.world_model.model import AIME
from aime.world_model.outputs import SequenceOutput

B, T = 2, 6
TASKS: dict[str, Any] = {"elbo": elbo, "perceiver": perceiver, "predictive": predictive}


@pytest.fixture
def model() -> AIME:
    torch.manual_seed(0)
    return AIME(small_config())


@pytest.fixture
def frames() -> Tensor:
    return torch.rand(B, T, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def actions() -> Tensor:
    return torch.rand(B, T, 2, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps of the complete model, the adversary heard in the last ones."""
    place = tmp_path_factory.mktemp("modes")
    write_shard(place / "data" / "000.h5", [synthetic_episode(12, seed, size=SIZE) for seed in range(8)])
    config = TrainConfig(
        data=str(place / "data"),
        out=place / "run",
        model=small_config(),
        steps=4,
        batch=2,
        length=6,
        log_every=1,
        checkpoint_every=1,
        device="cpu",
        precision="fp32",
        pictures=False,
        overshoot=OvershootConfig(steps=3),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdversaryConfig, "warmup", 0.25)
        train(config)
    return config.out


def log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


# training


def test_training_drops_contexts_and_evaluation_does_not(model: AIME, frames: Tensor, actions: Tensor) -> None:
    passes = [model.train().forward_sequence(frames, actions).track for _ in range(12)]
    kept = model.eval().forward_sequence(frames, actions)
    assert torch.equal(kept.track.belief_contexts, kept.contexts)
    implied = torch.stack([(track.belief_contexts == track.implied_contexts).all(-1) for track in passes])
    assert 0 < implied.float().mean() < 1


@pytest.mark.parametrize("layer", [MultiHeadAttention(8, 8, 2, dropout=0.5), CausalTimeAttention(8, 2, 3, dropout=0.5)])
def test_training_drops_out_of_attention_layers_and_evaluation_does_not(
    layer: MultiHeadAttention | CausalTimeAttention,
) -> None:
    latents = torch.randn(2, 3, 400, 8) if isinstance(layer, CausalTimeAttention) else torch.randn(2, 400, 8)

    def attended() -> Tensor:
        return layer(latents)[0] if isinstance(layer, CausalTimeAttention) else layer(latents, latents)

    layer.train()
    assert (attended() == 0).float().mean() == pytest.approx(0.5, abs=0.05)
    layer.eval()
    assert torch.equal(attended(), attended())
    assert not (attended() == 0).any()


def test_the_model_s_attention_layers_drop_out_as_configured(model: AIME) -> None:
    shares = {each.dropout.p for each in model.modules() if isinstance(each, MultiHeadAttention | CausalTimeAttention)}
    assert shares == {model.config.perceiver.dropout} == {0.1}


def test_training_computes_every_term_of_every_task(run: Path) -> None:
    last = log(run)[-1]
    # this run observes no state
    expected = {f"{task}/{term}" for task, module in TASKS.items() for term in module.TERMS} - {"elbo/state_nll"}
    expected |= {f"adversarial/{term}" for term in ("image_generator", "temporal_generator", "feature_matching")}
    expected |= {"discriminator/image", "discriminator/temporal"}
    assert expected <= last.keys()
    assert all(last[name] is not None for name in expected)


def test_training_moves_the_discriminators_from_the_start(run: Path) -> None:
    assert ["discriminator/image" in line for line in log(run)] == [False, True, False, True]
    assert ["adversarial/image_generator" in line for line in log(run)] == [False, False, True, True]
    steps = [value for name, value in load_file(run / "checkpoint" / "critic.safetensors").items() if ".step" in name]
    assert {float(value) for value in steps} == {2.0}


def test_training_has_gradients_balanced_by_rgb(run: Path) -> None:
    last = log(run)[-1]
    for task in ("elbo", "perceiver", "predictive", "adversarial"):
        assert last[f"balance/norm_{task}"] > 0
        assert 0 <= last[f"balance/angle_{task}"] < torch.pi / 2
    assert -1 <= last["balance/cosine_elbo_predictive"] <= 1
    assert {"loss", "gradient_norm", "learning_rate"} <= last.keys()


def test_training_pushes_slots_apart(model: AIME, frames: Tensor, actions: Tensor) -> None:
    """Diversity regularisation: a step down the overlap's slope lowers it."""
    model.train()

    def overlap() -> Tensor:
        return overlap_of(model.forward_sequence(frames, actions).attention.slot_maps).mean()

    before = overlap()
    optimizer = torch.optim.SGD(model.attention.parameters(), lr=1e-2)
    before.backward()
    optimizer.step()
    assert overlap() < before


def test_training_gives_all_intermediate_outputs(model: AIME, frames: Tensor, actions: Tensor) -> None:
    output = model.train().forward_sequence(frames, actions)
    assert output._fields == SequenceOutput._fields
    assert all(value is not None for value in output)
    assert output.reconstructions.requires_grad and output.latents.requires_grad
    assert not torch.equal(output.latents, output.posterior.mean), "a sample"


# evaluation


def test_evaluation_is_deterministic_and_takes_means(model: AIME, frames: Tensor, actions: Tensor) -> None:
    model.eval()
    first, second = (model.forward_sequence(frames, actions) for _ in range(2))
    assert torch.equal(first.latents, first.posterior.mean)
    assert torch.equal(first.reconstructions, second.reconstructions)
    assert torch.equal(first.attention.shown, first.attention.fused)
    assert first.reconstructions.min() >= 0 and first.reconstructions.max() <= 1
    assert torch.equal(*(model.predict_future(frames[:, :3], actions).frames for _ in range(2)))


def test_evaluation_leaves_every_buffer_as_it_was(model: AIME, frames: Tensor, actions: Tensor) -> None:
    """No codebook that follows, no variance that moves: those belong to training."""
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.forward_sequence(frames, actions)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_evaluation_bypasses_the_discriminators(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def called(*_: object) -> None:
        pytest.fail("the discriminators were asked")

    monkeypatch.setattr(Discriminators, "forward", called)
    evaluate_run(run, EvaluationRequest(context=2, horizon=3, samples=2))
    assert not [name for name, _ in AIME.from_pretrained(run).named_parameters() if "discriminator" in name]


def test_the_four_options_of_inference(model: AIME, frames: Tensor, actions: Tensor) -> None:
    model.eval()
    config = model.config
    with torch.no_grad():
        reconstructions = model.forward_sequence(frames, actions).reconstructions
    assert reconstructions.shape == frames.shape
    future = model.predict_future(frames[:, :2], actions)
    assert future.frames.shape == (B, T - 2, 3, SIZE, SIZE)
    assert model.encode(frames).shape == (B, T, config.latent)
    assert model.extract_context(frames).shape == (B, T, config.context)
    outputs = (future.frames, model.encode(frames), model.extract_context(frames))
    assert not any(each.requires_grad for each in outputs), "without asking"
