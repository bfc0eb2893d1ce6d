"""Calibration of the prior's spread, on futures that the model itself has sampled."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from tests.models import small_config, targets

from aime.dynamics.choices import sampled
from aime.training.calibration import CONTEXT, fit_spread
from aime.world_model.model import AIME
from aime.world_model.outputs import LatentClips

B, T = 64, 16
Kind = Literal["mixture", "single_gaussian"]


def model_of(kind: Kind) -> AIME:
    """A model whose prior's parameters depend on everything that it reads."""
    torch.manual_seed(0)
    config = small_config()
    model = AIME(replace(config, prior=replace(config.prior, kind=kind))).eval()
    torch.nn.init.normal_(model.dynamics.prior.head.weight, std=0.1)
    return model


@torch.no_grad()
def from_uniforms(model: AIME) -> LatentClips:
    """Clips that the model dreams of as well as can be: after five random latents they are a dream of its own."""
    config = model.config
    latents, contexts = torch.randn(B, T, config.latent), torch.randn(B, T, config.context_width)
    actions = torch.rand(B, T, config.action_width) * 2 - 1
    seen = model.dynamics.scan(latents[:, :CONTEXT], contexts[:, :CONTEXT], actions[:, :CONTEXT])
    start = model.dynamics.states_at(seen, -1)
    dream = model.dynamics.rollout(start, actions[:, CONTEXT - 1 : -1], sampled)
    latents[:, CONTEXT:] = dream.latents
    return LatentClips(latents, contexts, actions, targets(torch.ones(B, T, dtype=torch.bool)))


@pytest.mark.parametrize("kind", ["mixture", "single_gaussian"])
@pytest.mark.parametrize("error", [-0.625, 0.0, 0.375])
def test_a_spread_that_is_wrong_by_a_known_number_is_put_right(kind: Kind, error: float) -> None:
    model = model_of(kind)
    clips = from_uniforms(model)
    true = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model.dynamics.prior.spread_bias.add_(error)
    fit = fit_spread(model.dynamics, clips)
    assert fit.shift == pytest.approx(-error, abs=0.126), "a step of what is tried"
    assert fit.energy <= fit.energy_before
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, true[name], atol=0.126, rtol=0)


def test_padding_does_not_count() -> None:
    model = model_of("mixture")
    clips = from_uniforms(model)
    valid = torch.arange(T)[None] < torch.randint(CONTEXT + 1, T, (B, 1))
    clips = clips._replace(targets=targets(valid))
    before = model.dynamics.prior.spread_bias.clone()
    fit = fit_spread(model.dynamics, clips)
    with torch.no_grad():
        model.dynamics.prior.spread_bias.copy_(before)
    odd = torch.where(valid[..., None], clips.latents, 50.0)
    assert fit_spread(model.dynamics, clips._replace(latents=odd)) == pytest.approx(fit)


def test_the_shortest_clips_are_enough() -> None:
    model = model_of("mixture")
    clips = from_uniforms(model)
    latents, contexts, actions = (each[:, :2] for each in clips[:3])
    short = LatentClips(latents, contexts, actions, targets(torch.ones(B, 2, dtype=torch.bool)))
    assert fit_spread(model.dynamics, short).energy > 0


def test_what_is_not_finite_changes_nothing() -> None:
    model = model_of("mixture")
    clips = from_uniforms(model)
    clips.latents[3, 7] = torch.nan
    before = model.dynamics.prior.spread_bias.clone()
    assert fit_spread(model.dynamics, clips).shift == 0
    assert torch.equal(model.dynamics.prior.spread_bias, before)
