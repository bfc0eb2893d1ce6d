"""The evaluation's numbers where the right answer is known, and what it refuses."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from tests.inference.runs import MakeRun
from tests.inference.worlds import HIERARCHICAL, NOISE, Knowledge, Oracle, drifting_clips
from torch import Tensor

from aime.data import open_dataset
from aime.data.clips import clip_seeds, clip_starts, read_clips
from aime.errors import AimeError
from aime.inference import Evaluation, EvaluationRequest, evaluate_run
from aime.inference import evaluate as evaluating
from aime.inference.evaluate import score_clips
from aime.inference.loading import load_run
from aime.inference.predictors import ClipPredictor
from aime.inference.summary import summarise

REQUEST = EvaluationRequest(context=2, horizon=6, samples=2)


def evaluation_of(knowledge: Knowledge, samples: int = 16) -> Evaluation:
    scores = score_clips(Oracle(knowledge), drifting_clips(3, 9), range(3), context=2, samples=samples)
    return summarise(scores, range(3), samples, run="run", data="data", split="all", weights="0")


def test_a_perfect_prediction_has_skill_one() -> None:
    evaluation = evaluation_of("all")
    assert (evaluation.clips, evaluation.context, evaluation.horizon, evaluation.samples) == (3, 2, 7, 16)
    assert list(evaluation.horizons) == list(range(1, 8))
    for scores in evaluation.horizons.values():
        assert scores.skill == pytest.approx(1)
        assert scores.skill_likeliest == 1
        assert scores.mse == pytest.approx(0, abs=1e-12)
        assert scores.mse_likeliest == scores.energy_score == 0
        assert scores.psnr == pytest.approx(100)
        assert scores.ssim == pytest.approx(1, abs=1e-5)
        assert scores.coverage == 1
        assert math.isnan(scores.coverage_uncertain)


@pytest.mark.parametrize("knowledge", ["mean image", "still"])
def test_to_know_no_more_than_a_baseline_is_no_skill(knowledge: Knowledge) -> None:
    evaluation = evaluation_of(knowledge)
    for number, scores in evaluation.horizons.items():
        baselines = evaluation.baselines.mean_image[number], evaluation.baselines.persistence[number]
        ours, other = baselines if knowledge == "mean image" else baselines[::-1]
        assert scores.mse == pytest.approx(ours.mse)
        assert scores.psnr == pytest.approx(ours.psnr, abs=1e-4)
        assert scores.skill == pytest.approx(min(0, 1 - ours.mse / other.mse), abs=1e-5)


def test_baselines_are_the_last_frame_and_the_mean_image() -> None:
    clips = drifting_clips(3, 9)
    frames = clips.frames.double() / 255
    evaluation = evaluation_of("all")
    for ahead in (1, 7):
        still = (frames[:, 1] - frames[:, 1 + ahead]).square().mean(dim=(1, 2, 3))
        mean = (0.5 - frames[:, 1 + ahead]).square().mean(dim=(1, 2, 3))
        assert evaluation.baselines.persistence[ahead].mse == pytest.approx(still.mean().item(), rel=1e-5)
        decibels = (-10 * still.log10()).mean().item()
        assert evaluation.baselines.persistence[ahead].psnr == pytest.approx(decibels, rel=1e-5)
        assert evaluation.baselines.mean_image[ahead].mse == pytest.approx(mean.mean().item(), rel=1e-5)


def test_samples_are_judged_by_their_mean_and_as_samples() -> None:
    evaluation = evaluation_of("uncertain")
    scores = evaluation.horizons[4]
    # the mean of 16 samples has a sixteenth of a sample's variance
    assert scores.mse == pytest.approx(NOISE**2 / 16, rel=0.1)
    assert scores.mse_likeliest == 0
    assert evaluation.best_of[4].mse == pytest.approx(NOISE**2, rel=0.1)
    # ‖X - y‖ is NOISE and ‖X - X'‖ is √2 NOISE, as root mean squares over many values
    assert scores.energy_score == pytest.approx(NOISE * (1 - math.sqrt(0.5)), rel=0.05)
    # the truth lies in the middle of the samples
    assert scores.coverage > 0.95
    assert scores.coverage_uncertain == pytest.approx(scores.coverage, abs=0.01)


def test_what_the_whole_clip_tells() -> None:
    evaluation = evaluation_of("all")
    assert evaluation.reconstruction.psnr == pytest.approx(20, abs=1e-3)
    assert evaluation.reconstruction.psnr_mean_image == pytest.approx(evaluation.baselines.mean_image[1].psnr, abs=0.2)
    assert evaluation.latent_surprise == pytest.approx(4)
    assert evaluation.frame_bound == pytest.approx(4)
    assert evaluation.latent_surprise_by_frame == pytest.approx(list(range(9)))
    assert evaluation.effective_components == pytest.approx(2)
    assert evaluation.codebook_perplexity == pytest.approx(3)


def test_few_samples_have_no_interval_and_fewer_to_choose_from() -> None:
    evaluation = evaluation_of("uncertain", samples=3)
    assert evaluation.best_of_samples == 3
    assert math.isnan(evaluation.horizons[1].coverage)
    assert math.isfinite(evaluation.horizons[1].energy_score)


def test_batches_of_bounded_memory_score_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = drifting_clips(5, 6)
    whole = score_clips(Oracle(), clips, range(5), context=2, samples=2)
    frame = clips.frames[0, 0].numel() * 4
    monkeypatch.setattr(evaluating, "BYTES_AT_ONCE", 2 * 2 * 4 * frame)
    oracle, told = Oracle(), []
    parts = score_clips(oracle, clips, range(5), 2, 2, lambda done, count: told.append((done, count)))
    assert oracle.longest_batch == 2
    assert told == [(2, 5), (4, 5), (5, 5)]
    for ours, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_order_and_batches_change_no_score(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    _info, model = load_run(run.path, "cpu")
    dataset = open_dataset(run.data)
    places = clip_starts(dataset, 8)
    clips, seeds = read_clips(dataset, places, 8), clip_seeds(dataset, places)
    together = score_clips(ClipPredictor(model), clips, seeds, 3, 9)
    turned = places.take(np.arange(len(seeds))[::-1])
    reversed_ = score_clips(ClipPredictor(model), read_clips(dataset, turned, 8), clip_seeds(dataset, turned), 3, 9)
    monkeypatch.setattr(evaluating, "BYTES_AT_ONCE", 1)
    one_by_one = score_clips(ClipPredictor(model), clips, seeds, 3, 9)
    assert len(set(together.energy[:, 0].tolist())) == len(seeds), "samples of different clips differ"
    for other, back in ((reversed_, True), (one_by_one, False)):
        for ours, theirs in zip(_flat(together), _flat(other), strict=True):
            theirs = theirs.flip(0) if back else theirs
            torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=2e-5, equal_nan=True)


def _flat(scores: Any) -> list[Tensor]:
    return [each for field in scores for each in (_flat(field) if isinstance(field, tuple) else [field])]


def test_figures_have_the_intervals_of_whole_episodes() -> None:
    torch.manual_seed(0)
    clips = drifting_clips(12, 6)
    episodes = [0, 0, 0, 1, 1, 2, 3, 4, 5, 5, 6, 7]
    scores = score_clips(Oracle("uncertain"), clips, range(12), 2, 9)
    noisy = scores._replace(mse=scores.mean_image_ahead * torch.rand(12, 1).square(), frame_bound=torch.randn(12, 6))
    found = summarise(noisy, episodes, 9, run="run", data="data", split="all", weights="0")
    assert (found.episodes, found.clips) == (8, 12)

    tail = stats.norm.cdf(-stats.t.ppf(0.975, 7) * math.sqrt(8 / 7))
    below = torch.minimum(scores.persistence.mean(0), scores.mean_image_ahead.mean(0))[2]
    own = [np.flatnonzero(np.array(episodes) == each) for each in range(8)]
    sums = np.array([[noisy.mse[rows, 2].sum(), scores.mean_image_ahead[rows, 2].sum(), len(rows)] for rows in own])
    assert found.horizons[3].skill == pytest.approx(1 - float(noisy.mse[:, 2].mean() / below), rel=1e-5)

    def skill(mse: np.ndarray, reference: np.ndarray, axis: int) -> np.ndarray:
        return 1 - mse.sum(axis) / reference.sum(axis)

    assert (scores.mean_image_ahead < scores.persistence).all(), "the mean image is the better baseline of any set"
    theirs = stats.bootstrap(
        (sums[:, 0], sums[:, 1]),
        skill,
        paired=True,
        n_resamples=20_000,
        confidence_level=1 - 2 * tail,
        method="percentile",
    ).confidence_interval
    ours = found.intervals.horizons[3].skill
    assert ours is not None
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.1 * (theirs.high - theirs.low))

    assert found.intervals.frame_bound is not None
    low, high = found.intervals.frame_bound
    assert low < found.frame_bound < high
    # episodes of known figures only: the oracle has the same weights and codes in all of them
    assert found.intervals.effective_components == pytest.approx((2, 2))
    assert found.kl_hierarchical == pytest.approx(HIERARCHICAL)


def test_one_episode_has_figures_and_no_intervals() -> None:
    scores = score_clips(Oracle("uncertain"), drifting_clips(3, 9), range(3), 2, 9)
    alone = summarise(scores, [4, 4, 4], 9, run="run", data="data", split="all", weights="0")
    assert alone.episodes == 1
    content = json.loads(alone.to_json())
    assert content["intervals"]["frame_bound"] is None
    assert content["intervals"]["horizons"]["3"] == dict.fromkeys(content["horizons"]["3"])


def test_every_figure_in_json_has_an_interval_in_its_place() -> None:
    content = json.loads(evaluation_of("uncertain").to_json())

    def check(figures: Any, intervals: Any) -> int:
        if isinstance(figures, dict):
            assert figures.keys() == intervals.keys()
            return sum(check(figures[name], intervals[name]) for name in figures)
        if isinstance(figures, list):
            return sum(check(*pair) for pair in zip(figures, intervals, strict=True))
        if figures is None:
            assert intervals is None
            return 0
        low, high = intervals
        assert low <= figures + 1e-6 and figures - 1e-6 <= high
        return 1

    figures = {name: value for name, value in content.items() if name in content["intervals"]}
    assert check(figures, content["intervals"]) > 7 * 15 + 9


def test_json_has_the_documented_names_and_comes_back() -> None:
    evaluation = evaluation_of("all", samples=3)
    text = evaluation.to_json()
    content: dict[str, Any] = json.loads(text)
    assert content["clips"] == 3
    assert content["horizons"]["1"].keys() >= {"psnr", "ssim", "skill", "skill_likeliest", "mse", "energy_score"}
    assert content["horizons"]["1"]["coverage"] is None
    assert content["best_of"]["7"].keys() == {"mse", "psnr"}
    assert content["baselines"].keys() == {"persistence", "mean_image"}
    assert content["reconstruction"]["psnr"] == pytest.approx(20, abs=1e-3)
    assert content.keys() >= {
        "latent_surprise",
        "frame_bound",
        "effective_components",
        "codebook_perplexity",
        "definitions",
    }
    again = Evaluation.from_json(text, "file")
    assert again.to_json() == text
    assert again.horizons[7] == evaluation.horizons[7] or math.isnan(again.horizons[7].coverage)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"definitions": {}, "clips": 3}'])
def test_other_json_is_no_evaluation(text: str) -> None:
    with pytest.raises(AimeError, match=r"^file: not an evaluation: .*aime evaluate"):
        Evaluation.from_json(text, "file")


def test_a_run_is_evaluated_on_its_held_out_episodes(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    out = tmp_path / "scores" / "evaluation.json"
    evaluation = evaluate_run(run.path, REQUEST, out)
    assert (evaluation.split, evaluation.unseen) == ("test", "test part, held out by the run")
    assert evaluation.data == str(run.data)
    assert evaluation.clips == 2  # of one episode
    assert evaluate_run(run.path, replace(REQUEST, part="all")).clips == 4
    assert out.read_text(encoding="utf-8") == evaluation.to_json()
    assert evaluate_run(run.path, REQUEST).to_json() == evaluation.to_json()


def test_short_episodes_are_refused_with_the_remedy(make_run: MakeRun) -> None:
    run = make_run()
    with pytest.raises(AimeError, match=r"longest unseen episode has 20 frames, expected 50.*--horizon 15 or less"):
        evaluate_run(run.path)
    with pytest.raises(AimeError, match=r"20 frames, expected 75.*record longer"):
        evaluate_run(run.path, EvaluationRequest(context=30))


@pytest.mark.parametrize(
    ("size", "width", "named"), [(16, 2, "image size is 16, expected 32"), (32, 3, "width is 3, expected 2")]
)
def test_another_world_is_refused(make_run: MakeRun, size: int, width: int, named: str) -> None:
    run, other = make_run(), make_run(size=size, action_width=width)
    with pytest.raises(AimeError, match=named) as caught:
        evaluate_run(run.path, replace(REQUEST, data=other.data))
    assert str(other.data) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["context", "horizon", "samples", "clips"])
def test_numbers_below_one_are_refused(name: str) -> None:
    arguments: dict[str, Any] = {name: 0}
    with pytest.raises(AimeError, match=rf"^{name} is 0; expected 1 or more"):
        EvaluationRequest(**arguments)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AimeError, match="not a run"):
        evaluate_run(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_named(make_run: MakeRun) -> None:
    with pytest.raises(AimeError, match=r"^device is cuda; expected a CUDA GPU and found none"):
        evaluate_run(make_run().path, EvaluationRequest(device="cuda"))
