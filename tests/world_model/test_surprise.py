"""Surprise: the bound against quadrature, and whether the surprise of latents finds a wrong world."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from tests.models import small_config
from torch import Tensor

from aime.data import load_clips
from aime.errors import AimeError
from aime.world_model.model import AIME
from aime.world_model.outputs import BeliefState, Observation

B, T, SIZE = 2, 3, 16
GRID = torch.linspace(-8, 8, 801, dtype=torch.float64)[:, None]


@pytest.fixture(scope="module")
def model() -> AIME:
    """In float64, with a latent of one number, so that integrals over it can be computed."""
    torch.manual_seed(2)
    config = small_config()
    config = replace(config, latent=1, image_size=SIZE, prior=replace(config.prior, components=3))
    # a proposal wide enough that importance weights come to the integral
    model = AIME(replace(config, encoder=replace(config.encoder, min_std=0.8, max_mean=1.5))).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        # maps that the frame is seen by, P_t far from A_t
        for name, parameter in model.named_parameters():
            if name.startswith("decoder.gains"):
                parameter.fill_(2.0)
        model.get_parameter("attention.top_down.logits.weight").normal_()
        model.decoder.variance.fill_(1.0)
    return model


@pytest.fixture(scope="module")
def frames() -> Tensor:
    return torch.rand(B, T, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def actions() -> Tensor:
    return torch.rand(B, T, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 2 - 1


@torch.no_grad()
def nats_by_quadrature(model: AIME, frames: Tensor, actions: Tensor) -> Tensor:
    """-log ∫ p(z | h_{t-1}) p(x_t | z, P_t(h_{t-1}, z, U_{t-1})) dz of every frame, step by step through the video."""
    state, nats = model.initial_state(B), []
    for t in range(T):
        last_maps = state.last_map
        state, seen = model.observe(state, frames[:, t], actions[:, t - 1])
        nats.append(torch.stack([_integral(model, frames[row, t], state, seen, last_maps, row) for row in range(B)]))
    return torch.stack(nats, dim=1)


def _integral(model: AIME, frame: Tensor, state: BeliefState, seen: Observation, last_maps: Tensor, row: int) -> Tensor:
    """Of one frame, by the trapezoidal rule over the latent."""
    count, variance = len(GRID), model.decoder.variance
    belief, last_map = state.carry.belief[row].expand(count, -1), last_maps[row].expand(count, -1, -1)
    pictures = model.decode(GRID, model.attention.expect(belief, GRID, last_map).map)
    error = (pictures - frame).square().flatten(1).sum(1)
    likelihood = -error / (2 * variance) - 0.5 * frame.numel() * torch.log(2 * math.pi * variance)
    log_weights, means, stds = (each[row] for each in seen.prior.mixture)
    components = torch.distributions.Normal(means[:, 0], stds[:, 0]).log_prob(GRID) + log_weights
    return -((likelihood + components.logsumexp(1)).logsumexp(0) + math.log(16 / 800))


def test_the_bound_on_a_frame_is_never_below_its_nats_and_becomes_them(
    model: AIME, frames: Tensor, actions: Tensor
) -> None:
    true = nats_by_quadrature(model, frames, actions)
    for samples, times in ((1, 64), (4, 24)):
        drawn = torch.stack([model.surprise(frames, actions, "frame", samples, 1000 * seed) for seed in range(times)])
        error = drawn.std(0) / times**0.5
        assert (drawn.mean(0) > true - 4 * error).all()
        assert (drawn.mean(0) - true).mean() > (0.2 if samples == 1 else 0.02)
    # with this many the weights' mean is as good as the integral
    many = model.surprise(frames, actions, "frame", samples=600)
    torch.testing.assert_close(many, true, rtol=0, atol=0.3)


def test_the_surprise_of_latents_is_what_its_formula_says(model: AIME, frames: Tensor, actions: Tensor) -> None:
    track = model.forward_sequence(frames, actions).track
    found = model.surprise(frames, actions).numpy()
    weights, means, stds = (each.detach().numpy() for each in track.prior.mixture)
    weights, latents = np.exp(weights), track.latents.detach().numpy()
    for row in range(B):
        for t in range(T):
            mean = sum(w * m for w, m in zip(weights[row, t], means[row, t], strict=True))
            square = sum(
                w * (s**2 + m**2) for w, m, s in zip(weights[row, t], means[row, t], stds[row, t], strict=True)
            )
            variance = square - mean**2
            moved = latents[row, t - 1] - latents[row, t - 2] if t > 1 else 0 * mean
            expected = np.mean((latents[row, t] - mean) ** 2 / variance) / np.sqrt(np.mean(moved**2 / variance) + 0.25)
            assert found[row, t] == pytest.approx(expected, rel=1e-6)


def test_what_is_missing_or_unknown_is_refused_or_left_out(model: AIME, frames: Tensor, actions: Tensor) -> None:
    with pytest.raises(AimeError, match="surprise of 'pixel'; expected 'latent' or 'frame'"):
        model.surprise(frames, actions, "pixel")  # type: ignore[arg-type]
    with pytest.raises(AimeError, match="samples is 0"):
        model.surprise(frames, actions, samples=0)
    ended = actions.masked_fill(torch.arange(T)[:, None] == T - 1, torch.nan)
    assert torch.equal(model.surprise(frames, ended), model.surprise(frames, actions))
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[:, 1] = False
    unknown = torch.where(valid[..., None], actions, torch.nan)
    assert not torch.equal(model.surprise(frames, unknown, action_valid=valid), model.surprise(frames, actions))
    alone = model.surprise(frames[1:], actions[1:], "frame", seed=[7])
    torch.testing.assert_close(model.surprise(frames, actions, "frame", seed=[3, 7])[1:], alone)


def area(wrong: Tensor, right: Tensor) -> float:
    """Share of the pairs in which the wrong one is the higher."""
    wrong, right = wrong.flatten(), right.flatten()
    return float(mannwhitneyu(wrong.numpy(), right.numpy()).statistic) / (len(wrong) * len(right))


@torch.inference_mode()
def test_the_surprise_of_latents_finds_a_wrong_world() -> None:
    """On the starts of some of the clips that benchmarks/surprise.py takes, at its bars."""
    model, clips = AIME.from_pretrained("bundled:cartpole"), load_clips("bundled:cartpole", length=25, count=48)
    frames, actions = clips.frames[::4], clips.actions[::4]
    right = model.surprise(frames, actions)[:, 5:]
    still = torch.cat([frames[:, :5], frames[:, 4:5].expand(-1, 20, -1, -1, -1)], dim=1)
    elsewhere = torch.cat([frames[:, :6], frames[:, 6:].roll(1, 0)], dim=1)
    assert area(model.surprise(frames, -actions)[:, 5:], right) > 0.7
    assert area(model.surprise(still, actions)[:, 5:], right) > 0.8
    assert area(model.surprise(elsewhere, actions)[:, 6], right) > 0.95
