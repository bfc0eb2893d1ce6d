"""The likelihood of the observed state: number by number, and what it teaches."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tests.models import SIZE, small_config, targets
from torch import Tensor

from aime.data.clips import Targets
from aime.dynamics.heads.state import StateHead
from aime.dynamics.states import Track
from aime.objectives.latents import state_nll
from aime.objectives.passes import LatentPass
from aime.objectives.tasks import task_losses
from aime.objectives.weights import ElboWeights, LossWeights, OvershootConfig
from aime.perception.state_reader import StateConfig
from aime.primitives.distributions import DiagonalGaussian
from aime.world_model.model import AIME
from aime.world_model.outputs import LatentClips

B, T, S = 2, 4, 3


def head_of(model: AIME) -> StateHead:
    assert model.dynamics.state_head is not None
    return model.dynamics.state_head


@pytest.fixture
def model() -> AIME:
    torch.manual_seed(0)
    model = AIME(replace(small_config(), state=StateConfig(width=S))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    head_of(model).scale.fit(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 1.0, 0.5]))
    return model


def nats(model: AIME, track: Track, known: Targets) -> Tensor | None:
    """The term, of frames along a track."""
    nothing = torch.zeros(*known.valid.shape, 0)
    return state_nll(LatentPass(model.dynamics, LatentClips(nothing, nothing, nothing, known), known, followed=track))


@torch.no_grad()
def test_the_likelihood_counts_each_known_number_of_each_frame_once(model: AIME) -> None:
    states = torch.randn(B, T, S) + 1
    states[0, 1, 2], states[1, 2] = torch.nan, torch.nan
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[0, 3] = False
    track = model.forward_sequence(torch.rand(B, T, 3, SIZE, SIZE), None, None, states).track
    head = head_of(model)
    means, stds = head(*track.read)
    total, count = 0.0, 0
    for clip, time in ((clip, time) for clip in range(B) for time in range(T)):
        numbers = [n for n in range(S) if not math.isnan(states[clip, time, n])]
        if not valid[clip, time] or not numbers:
            continue
        count += 1
        for n in numbers:
            value = (float(states[clip, time, n]) - [1, 2, 3][n]) / [2, 1, 0.5][n]
            mean, std = float(means[clip, time, n]), float(stds[clip, time, n])
            total += 0.5 * ((value - mean) / std) ** 2 + math.log(std) + 0.5 * math.log(2 * math.pi)
    term = nats(model, track, targets(valid, states))
    assert term is not None
    assert float(term) == pytest.approx(total / count, rel=1e-5)


def test_a_number_that_is_predicted_well_does_not_drown_the_others(
    model: AIME, monkeypatch: pytest.MonkeyPatch
) -> None:
    states, valid = torch.randn(B, T, S), torch.ones(B, T, dtype=torch.bool)
    head = head_of(model)
    mean = torch.zeros(B, T, S, requires_grad=True)
    std = torch.tensor([0.02, 0.5, 5.0]).expand(B, T, S).clone().requires_grad_()
    with torch.no_grad():
        track = model.forward_sequence(torch.rand(B, T, 3, SIZE, SIZE)).track
    monkeypatch.setattr(head, "forward", lambda *_: DiagonalGaussian(mean, std))
    term = nats(model, track, targets(valid, states))
    assert term is not None
    value = head.scale(states)
    exact = torch.distributions.Normal(mean, std).log_prob(value)
    assert term.item() == pytest.approx(-exact.sum(-1).mean().item(), rel=1e-5), "its value is in nats all the same"
    found = torch.autograd.grad(term, (mean, std))
    plain = torch.autograd.grad(-exact.sum(-1).mean(), (mean, std))
    for gradient, without in zip(found, plain, strict=True):
        torch.testing.assert_close(gradient, without * std.detach())


def test_its_gradient_reaches_reader_and_head_and_no_nan_comes_through(model: AIME) -> None:
    model.train()
    states = torch.randn(B, T, S)
    states[0, :2], states[1, 2, 0] = torch.nan, torch.nan
    frames, valid = torch.rand(B, T, 3, SIZE, SIZE), torch.ones(B, T, dtype=torch.bool)
    output = model.forward_sequence(frames, None, None, states)
    loss = task_losses(model, output, frames, targets(valid, states), LossWeights(), OvershootConfig(steps=2)).elbo
    loss.total.backward()
    read = ("state_reader.", "dynamics.state_head.")
    gradients = {name: weight.grad for name, weight in model.named_parameters() if name.startswith(read)}
    assert gradients.keys() >= {"state_reader.unknown", "dynamics.state_head.project.weight"}
    for name, gradient in gradients.items():
        assert gradient is not None and gradient.isfinite().all() and gradient.any(), name


def test_it_is_off_with_its_weight_and_where_no_state_is_observed(model: AIME) -> None:
    valid = torch.ones(B, T, dtype=torch.bool)
    frames = torch.rand(B, T, 3, SIZE, SIZE)
    track = model.forward_sequence(frames).track
    known = targets(valid, torch.zeros(B, T, S))
    output = model.forward_sequence(frames)
    off = replace(LossWeights(), elbo=ElboWeights(state_nll=0))
    assert "state_nll" not in task_losses(model, output, frames, known, off, OvershootConfig(steps=2)).elbo.terms
    alone = AIME(small_config())
    output = alone.forward_sequence(frames)
    assert nats(alone, output.track, targets(valid)) is None
    nothing = torch.full((B, T, S), torch.nan)
    term = nats(model, track, targets(valid, nothing))
    assert term is not None and term.item() == 0
