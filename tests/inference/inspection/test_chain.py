"""The computation with one value replaced, on small models of which it is known what can have an effect."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from tests.models import small_config
from torch import Tensor

from aime.data import Clips
from aime.dynamics.prior import PriorConfig
from aime.inference import metrics
from aime.inference.evaluate import score_clips
from aime.inference.inspection import chain
from aime.inference.inspection.chain import Recording, Window, baselines, decibels, implied_contexts, record, score
from aime.inference.inspection.interventions import ALL, INTACT, INTERVENTIONS, Intervention
from aime.inference.inspection.measures import Scores
from aime.inference.predictors import ClipPredictor
from aime.primitives.seeded_noise import posterior_samples
from aime.representation.encoder import ResidualEncoder
from aime.world_model.model import AIME

CONTEXT, LENGTH, SEEDS = 3, 9, [7, 8, 9]
WINDOW = Window(CONTEXT, (1, 5), samples=2)


def random_clips() -> Clips:
    """Three clips of noise, so that every part has something to tell apart."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(SEEDS), LENGTH)
    frames = torch.randint(0, 256, (*shape, 3, 32, 32), generator=generator, dtype=torch.uint8)
    true = torch.ones(shape, dtype=torch.bool)
    actions = torch.rand((*shape, 2), generator=generator) * 2 - 1
    return Clips(frames, actions, torch.zeros(shape), ~true, true, true, true, None)


def random_masks() -> Tensor:
    """A body of one pixel in ten; the last clip shows none."""
    masks = torch.rand(len(SEEDS), LENGTH, 32, 32, generator=torch.Generator().manual_seed(1)) < 0.1
    masks[-1] = False
    return masks.to(torch.uint8)


def busy_model(kind: str = "mixture") -> AIME:
    """Random weights everywhere, those that start at zero too: every part has an effect on what reads it."""
    torch.manual_seed(0)
    config = small_config()
    if kind == "single_gaussian":
        config = replace(config, prior=PriorConfig(kind="single_gaussian", hidden=16))
    model = AIME(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.15 * torch.randn_like(weight))
    return model


@pytest.fixture(scope="module")
def intact(model: AIME, recording: Recording) -> Scores:
    return score(model, recording, WINDOW, INTACT)


def changed_kinds(intact: Scores, changed: Scores) -> set[str]:
    """The measures that differ by more than the rounding of sums in float32."""
    found: set[str] = set()
    for kind in ALL:
        before, after = known((intact.of(kind), changed.of(kind)))
        if not torch.allclose(before, after, rtol=2e-6, atol=0, equal_nan=True):
            found.add(kind)
    return found


def known(values: Iterable[Tensor | None]) -> list[Tensor]:
    found = list(values)
    assert all(each is not None for each in found)
    return [each for each in found if each is not None]


def test_without_a_change_the_figures_are_those_of_evaluate(model: AIME, recording: Recording, intact: Scores) -> None:
    evaluated = score_clips(ClipPredictor(model), random_clips(), SEEDS, CONTEXT, samples=2)
    psnr = metrics.psnr(evaluated.reconstruction).mean(1)
    torch.testing.assert_close(intact.reconstruction, psnr, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(intact.nats, evaluated.prior_nll.mean(1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(intact.skill, evaluated.mse[:, [0, 4]], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(intact.dream, metrics.psnr(evaluated.mse)[:, 4], atol=1e-4, rtol=1e-4)
    references = baselines(model, recording, WINDOW)
    torch.testing.assert_close(references.persistence, evaluated.persistence[:, [0, 4]])
    torch.testing.assert_close(references.mean_image, evaluated.mean_image_ahead[:, [0, 4]])


@pytest.mark.parametrize("intervention", INTERVENTIONS, ids=lambda each: each.name)
def test_what_an_intervention_is_said_to_change_is_what_it_changes(
    model: AIME, recording: Recording, intact: Scores, intervention: Intervention
) -> None:
    changed = score(model, recording, WINDOW, intervention, ALL)
    assert changed_kinds(intact, changed) == intervention.measures


def test_only_what_is_asked_for_is_computed(model: AIME, recording: Recording, intact: Scores) -> None:
    found = score(model, recording, WINDOW, INTACT, {"nats"})
    assert [kind for kind in ALL if found.of(kind) is not None] == ["nats"]
    assert torch.equal(*known((found.nats, intact.nats)))


def test_without_masks_there_are_no_figures_of_the_body(model: AIME, intact: Scores) -> None:
    found = score(model, record(model, random_clips(), SEEDS), WINDOW, INTACT)
    assert {kind for kind in ALL if found.of(kind) is None} == {"body", "body dream"}
    assert torch.equal(*known((found.reconstruction, intact.reconstruction)))


def test_decibels_of_the_body_are_those_of_its_pixels(intact: Scores) -> None:
    truth, drawn = torch.rand(2, 1, 3, 4, 4), torch.rand(2, 1, 3, 4, 4)
    masks = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    masks[0, 0, 1, 2], masks[0, 0, 3, 3] = 1, 2
    found = decibels(drawn, truth, masks)
    of_body = [(drawn - truth)[0, 0, :, row, column] ** 2 for row, column in ((1, 2), (3, 3))]
    assert found.body is not None
    assert float(found.body[0]) == pytest.approx(-10 * math.log10(float(torch.stack(of_body).mean())), abs=1e-5)
    assert bool(found.body[1].isnan()), "no body is shown"
    torch.testing.assert_close(found.frame, -10 * (drawn - truth).square().mean((-3, -2, -1)).log10())
    assert intact.body is not None and intact.body.isnan().tolist() == [False, False, True]


def test_the_elbo_is_that_of_a_sample_of_the_posterior(model: AIME, recording: Recording, intact: Scores) -> None:
    # the same sample by Monte Carlo: -log p(x | z, A) + log q(z) - log p(z), log q in place of the entropy
    clips = random_clips()
    output = model.forward_sequence(clips.frames, clips.actions, clips.action_valid)
    sample = posterior_samples(output.posterior, SEEDS, 1)[:, 0]
    frames = model.draw(sample.flatten(0, 1), output.attention.fused.flatten(0, 1)).unflatten(0, sample.shape[:2])
    pixels = stats.norm.logpdf(clips.frames / 255, frames.detach(), model.decoder.variance.sqrt()).sum((2, 3, 4))
    wanted = -pixels - (output.prior.mixture.log_prob(sample) + output.posterior.entropy()).detach().numpy()
    assert intact.elbo is not None
    np.testing.assert_allclose(intact.elbo, wanted[:, CONTEXT:].mean(1), rtol=1e-4)


def test_implied_contexts_are_those_of_a_belief_that_reads_nothing_else(model: AIME, recording: Recording) -> None:
    implied = implied_contexts(model.dynamics, recording.latents, recording.actions)
    track = model.dynamics.scan(recording.latents, implied, recording.actions)
    torch.testing.assert_close(track.implied_contexts, implied, atol=1e-5, rtol=1e-4)
    seen = model.dynamics.scan(recording.latents, recording.contexts, recording.actions)
    assert not torch.allclose(seen.implied_contexts[:, 1:], implied[:, 1:], atol=1e-3)


def test_a_context_that_nothing_reads_has_no_effect() -> None:
    model = busy_model()
    assert isinstance(model.encoder, ResidualEncoder) and model.encoder.context is not None
    from_input = dict(model.dynamics.recurrence.named_parameters())["lstm.weight_ih_l0"]
    with torch.no_grad():
        for weight in model.encoder.context.parameters():
            weight.zero_()
        first = 2 * model.config.latent
        from_input[:, first : first + model.config.context].zero_()
    recording = record(model, random_clips(), SEEDS, masks=random_masks())
    intact = score(model, recording, WINDOW, INTACT)
    for intervention in INTERVENTIONS:
        if intervention.part in ("context", "tokens"):
            assert changed_kinds(intact, score(model, recording, WINDOW, intervention)) == set(), intervention.name


def test_a_prior_of_one_gaussian_is_its_own_match() -> None:
    model = busy_model("single_gaussian")
    recording = record(model, random_clips(), SEEDS, masks=random_masks())
    [mixture] = [each for each in INTERVENTIONS if each.part == "mixture"]
    assert changed_kinds(score(model, recording, WINDOW, INTACT), score(model, recording, WINDOW, mixture)) == set()


def test_batches_change_nothing_but_rounding(
    model: AIME, recording: Recording, intact: Scores, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(chain, "AT_ONCE", 2)
    again = record(model, random_clips(), SEEDS, told.append, random_masks())
    assert told == [2, 3]
    assert torch.equal(again.tokens, recording.tokens)
    for ours, theirs in zip(score(model, again, WINDOW, INTACT), intact, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4, equal_nan=True)
