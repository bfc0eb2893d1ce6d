"""Errors of foretold states, against sums by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.inference.worlds import Oracle, drifting_clips

import aime.world_model.bundled
from aime.inference.evaluate import score_clips, summarise
from aime.inference.evaluation import Evaluation, StateScores
from aime.inference.state_scores import StateErrors, last_known, state_errors, summarise_states
from aime.primitives.standardise import Standardise

B, S, T, W, CONTEXT = 3, 4, 7, 2, 3


def test_errors_are_those_of_the_mean_in_spreads_of_each_number() -> None:
    torch.manual_seed(0)
    scale, mean, std = Standardise(W), torch.tensor([10.0, -1.0]), torch.tensor([5.0, 0.1])
    scale.fit(mean, std)
    states, predicted = torch.randn(B, T, W) * std + mean, torch.randn(B, S, T - CONTEXT, W) * std + mean
    states[0, 5, 1], states[1, 4], states[2, CONTEXT - 1, 0] = torch.nan, torch.nan, torch.nan
    errors = state_errors(scale, predicted, states, CONTEXT)
    for clip in range(B):
        for ahead in range(T - CONTEXT):
            truth = states[clip, CONTEXT + ahead]
            last = states[clip, CONTEXT - 1].clone()
            if clip == 2:
                last[0] = states[2, CONTEXT - 2, 0]  # the last that is known
            for found, guess in zip(errors, (predicted[clip, :, ahead].mean(0), last, mean), strict=True):
                known = truth.isfinite()
                expected = float(((guess - truth)[known] / std[known]).square().mean())
                assert float(found[clip, ahead]) == pytest.approx(expected, rel=1e-4, nan_ok=True)


def test_what_was_never_known_stays_unknown() -> None:
    seen = torch.tensor([[[torch.nan, 1.0], [2.0, torch.nan], [torch.nan, torch.nan]], [[torch.nan, 3.0]] * 3])
    torch.testing.assert_close(last_known(seen), torch.tensor([[2.0, 1.0], [torch.nan, 3.0]]), equal_nan=True)


def test_a_summary_averages_clips_first_and_is_none_without_states() -> None:
    error = torch.tensor([[1.0, torch.nan], [3.0, 4.0]])
    scores = summarise_states(StateErrors(error, error * 2, error * 4))
    assert scores is not None
    assert vars(scores[1]) == pytest.approx(vars(StateScores(0.75, 2**0.5, 2.0, 8**0.5)))
    assert scores[2].error == pytest.approx(2.0)
    nothing = torch.full((2, 2), torch.nan)
    assert summarise_states(StateErrors(nothing, nothing, nothing)) is None


def test_evaluations_with_states_without_and_of_before_are_read() -> None:
    scores = score_clips(Oracle("all"), drifting_clips(2, 5), 2, 2)
    alone = summarise(scores, 2, run="run", data="data", split="all", weights="")
    assert alone.states is None
    assert Evaluation.from_json(alone.to_json(), "file").states is None
    error = torch.tensor([[0.5, 0.6, 0.7]] * 2)
    both = summarise(
        scores._replace(state=StateErrors(error, error, error)), 2, run="run", data="data", split="all", weights=""
    )
    assert Evaluation.from_json(both.to_json(), "file").states == both.states
    old = Path(aime.world_model.bundled.__file__).parent / "cartpole" / "evaluation.json"
    content = json.loads(old.read_text(encoding="utf-8"))
    content.pop("states", None)
    assert Evaluation.from_json(json.dumps(content), str(old)).states is None
