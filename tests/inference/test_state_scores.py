"""Errors of predicted states, against sums by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from tests.inference.worlds import Oracle, drifting_clips

from aime.inference.evaluate import score_clips
from aime.inference.evaluation import Evaluation, StateScores
from aime.inference.state_scores import StateErrors, last_known, state_errors
from aime.inference.summary import summarise
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


def summary_with(state: StateErrors, episodes: Sequence[int] = (0, 1)) -> Evaluation:
    scores = score_clips(Oracle("all"), drifting_clips(2, 2 + state.predicted.shape[1]), range(2), 2, 2)
    return summarise(scores._replace(state=state), episodes, 2, run="run", data="data", split="all", weights="")


def test_a_summary_averages_clips_first_and_is_none_without_states() -> None:
    error = torch.tensor([[1.0, torch.nan], [3.0, 4.0]])
    scores = summary_with(StateErrors(error, error * 2, error * 4)).states
    assert scores is not None
    assert vars(scores[1]) == pytest.approx(vars(StateScores(0.75, 2**0.5, 2.0, 8**0.5)))
    assert scores[2].error == pytest.approx(2.0)
    nothing = torch.full((2, 2), torch.nan)
    assert summary_with(StateErrors(nothing, nothing, nothing)).states is None


def test_evaluations_with_states_and_without_are_read() -> None:
    error = torch.tensor([[0.5, 0.6, 0.7], [0.7, 0.8, 0.9]])
    both, alone = summary_with(StateErrors(error, error, error)), summary_with(StateErrors(*[error * torch.nan] * 3))
    assert alone.states is None
    assert Evaluation.from_json(alone.to_json(), "file").states is None
    again = Evaluation.from_json(both.to_json(), "file")
    assert again.states == both.states
    assert again.intervals.states == both.intervals.states
    assert again.intervals.states is not None and again.intervals.states[3].error is not None
