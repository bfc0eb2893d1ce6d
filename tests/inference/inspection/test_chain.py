"""The computation with one value replaced, on small models of which it is known what can have an effect."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.models import small_config
from torch import Tensor

from aime.data import Clips
from aime.dynamics.prior import PriorConfig
from aime.inference import metrics
from aime.inference.evaluate import score_clips
from aime.inference.inspection import chain
from aime.inference.inspection.chain import Recording, Window, baselines, record, score
from aime.inference.inspection.interventions import ALL, INTACT, INTERVENTIONS, Intervention
from aime.inference.inspection.measures import Scores
from aime.inference.predictors import ClipPredictor
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


def busy_model(kind: str = "mixture") -> AIME:
    """Random weights everywhere, those that start at zero too: every part has an effect on what reads it."""
    torch.manual_seed(0)
    config = small_config()
    if kind == "single_gaussian":
        config = replace(config, prior=PriorConfig(kind="single_gaussian", hidden=16))
    model = AIME(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


@pytest.fixture(scope="module")
def model() -> AIME:
    return busy_model()


@pytest.fixture(scope="module")
def recording(model: AIME) -> Recording:
    return record(model, random_clips(), SEEDS)


@pytest.fixture(scope="module")
def intact(model: AIME, recording: Recording) -> Scores:
    return score(model, recording, WINDOW, INTACT)


def changed_kinds(intact: Scores, changed: Scores) -> set[str]:
    """The measures that differ by more than the rounding of sums in float32."""
    pairs = zip(("reconstruction", "nats", "skill"), known(intact), known(changed), strict=True)
    return {kind for kind, before, after in pairs if not torch.allclose(before, after, rtol=2e-6, atol=0)}


def known(scores: Scores) -> list[Tensor]:
    found = [each for each in scores if each is not None]
    assert len(found) == len(scores)
    return found


def test_without_a_change_the_figures_are_those_of_evaluate(model: AIME, recording: Recording, intact: Scores) -> None:
    evaluated = score_clips(ClipPredictor(model), random_clips(), SEEDS, CONTEXT, samples=2)
    psnr, nats, mse = intact
    torch.testing.assert_close(psnr, metrics.psnr(evaluated.reconstruction).mean(1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(nats, evaluated.prior_nll.mean(1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mse, evaluated.mse[:, [0, 4]], atol=1e-5, rtol=1e-4)
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
    assert found.reconstruction is None
    assert found.skill is None
    assert found.nats is not None
    assert torch.equal(found.nats, known(intact)[1])


def test_a_context_that_nothing_reads_has_no_effect() -> None:
    model = busy_model()
    assert isinstance(model.encoder, ResidualEncoder) and model.encoder.context is not None
    from_input = dict(model.dynamics.recurrence.named_parameters())["lstm.weight_ih_l0"]
    with torch.no_grad():
        for weight in model.encoder.context.parameters():
            weight.zero_()
        first = 2 * model.config.latent
        from_input[:, first : first + model.config.context].zero_()
    recording = record(model, random_clips(), SEEDS)
    intact = score(model, recording, WINDOW, INTACT)
    for intervention in INTERVENTIONS:
        if intervention.part in ("context", "tokens"):
            assert changed_kinds(intact, score(model, recording, WINDOW, intervention)) == set(), intervention.name


def test_a_prior_of_one_gaussian_is_its_own_match() -> None:
    model = busy_model("single_gaussian")
    recording = record(model, random_clips(), SEEDS)
    [mixture] = [each for each in INTERVENTIONS if each.part == "mixture"]
    assert changed_kinds(score(model, recording, WINDOW, INTACT), score(model, recording, WINDOW, mixture)) == set()


def test_batches_change_nothing_but_rounding(
    model: AIME, recording: Recording, intact: Scores, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(chain, "AT_ONCE", 2)
    again = record(model, random_clips(), SEEDS, told.append)
    assert told == [2, 3]
    assert torch.equal(again.tokens, recording.tokens)
    for ours, theirs in zip(score(model, again, WINDOW, INTACT), intact, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
