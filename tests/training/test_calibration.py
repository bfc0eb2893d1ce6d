"""The prior's spread, fitted to latents whose true spread is known: they were drawn from the prior itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from tests.models import outcomes, small_config

from aime.training.calibration import fit_spread
from aime.world_model.model import AIME
from aime.world_model.outputs import LatentClips

B, T = 96, 12
Kind = Literal["mixture", "single_gaussian"]


def model_of(kind: Kind) -> AIME:
    """A model whose prior's parameters depend on everything that it reads."""
    torch.manual_seed(0)
    config = small_config()
    model = AIME(replace(config, prior=replace(config.prior, kind=kind))).eval()
    torch.nn.init.normal_(model.prior.head.weight, std=0.1)
    return model


@torch.no_grad()
def drawn_from(model: AIME) -> LatentClips:
    """Clips that the prior foretells as well as can be: each latent is a draw from it."""
    config = model.config
    latents, contexts = torch.randn(B, T, config.latent), torch.randn(B, T, config.context_width)
    actions = torch.rand(B, T, config.action_width) * 2 - 1
    for step in range(1, T):
        seen = slice(0, step + 1)
        mixture = model.follow(latents[:, seen], contexts[:, seen], actions[:, seen]).prior.mixture
        latents[:, step] = mixture.sample().value[:, step]
    return LatentClips(latents, contexts, actions, outcomes(torch.ones(B, T, dtype=torch.bool)))


@pytest.mark.parametrize("kind", ["mixture", "single_gaussian"])
@pytest.mark.parametrize("error", [-0.3, 0.0, 0.4])
def test_a_spread_that_is_wrong_by_a_known_number_is_put_right(kind: Kind, error: float) -> None:
    model = model_of(kind)
    clips = drawn_from(model)
    true = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model.prior.spread_bias.add_(error)
    fit = fit_spread(model, clips)
    assert fit.shift == pytest.approx(-error, abs=0.04)
    assert fit.nats <= fit.nats_before
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, true[name], atol=0.04, rtol=0)


def test_padding_and_first_latents_do_not_count() -> None:
    model = model_of("mixture")
    clips = drawn_from(model)
    valid = torch.arange(T)[None] < torch.randint(4, T, (B, 1))
    clips = clips._replace(outcomes=outcomes(valid))
    before = model.prior.spread_bias.clone()
    fit = fit_spread(model, clips)
    with torch.no_grad():
        model.prior.spread_bias.copy_(before)
        prior = model.follow(*clips[:3]).prior.mixture
        assert fit.nats_before == pytest.approx(float(-prior.log_prob(clips.latents)[:, 1:][valid[:, 1:]].mean()))
    odd = torch.where(valid[..., None], clips.latents, 50.0)
    assert fit_spread(model, clips._replace(latents=odd)).shift == pytest.approx(fit.shift)


def test_what_is_not_finite_changes_nothing() -> None:
    model = model_of("mixture")
    clips = drawn_from(model)
    clips.latents[3, 5] = torch.nan
    before = model.prior.spread_bias.clone()
    assert fit_spread(model, clips).shift == 0
    assert torch.equal(model.prior.spread_bias, before)
