"""The evaluation's numbers where the right answer is known, and what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.inference.runs import MakeRun
from tests.inference.worlds import NOISE, Knowledge, Oracle, drifting_clips

from aime.errors import AimeError
from aime.inference import Evaluation, evaluate_run
from aime.inference import evaluate as evaluating
from aime.inference.evaluate import score_clips, summarise


def evaluation_of(knowledge: Knowledge, samples: int = 16) -> Evaluation:
    scores = score_clips(Oracle(knowledge), drifting_clips(3, 9), context=2, samples=samples)
    return summarise(scores, samples, run="run", data="data", split="all", weights="0")


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
        baselines = evaluation.baselines.climatology[number], evaluation.baselines.persistence[number]
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
        assert evaluation.baselines.climatology[ahead].mse == pytest.approx(mean.mean().item(), rel=1e-5)


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
    assert evaluation.reconstruction.psnr_mean_image == pytest.approx(evaluation.baselines.climatology[1].psnr, abs=0.2)
    assert evaluation.surprise == pytest.approx(4)
    assert evaluation.surprise_by_frame == pytest.approx(list(range(9)))
    assert evaluation.effective_components == pytest.approx(2)
    assert evaluation.codebook_perplexity == pytest.approx(3)


def test_few_samples_have_no_interval_and_fewer_to_choose_from() -> None:
    evaluation = evaluation_of("uncertain", samples=3)
    assert evaluation.best_of_samples == 3
    assert math.isnan(evaluation.horizons[1].coverage)
    assert math.isfinite(evaluation.horizons[1].energy_score)


def test_batches_of_bounded_memory_score_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = drifting_clips(5, 6)
    whole = score_clips(Oracle(), clips, context=2, samples=2)
    frame = clips.frames[0, 0].numel() * 4
    monkeypatch.setattr(evaluating, "BYTES_AT_ONCE", 2 * 2 * 4 * frame)
    oracle, told = Oracle(), []
    parts = score_clips(oracle, clips, context=2, samples=2, progress=lambda done, count: told.append((done, count)))
    assert oracle.longest_batch == 2
    assert told == [(2, 5), (4, 5), (5, 5)]
    for ours, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_json_has_the_documented_names_and_comes_back() -> None:
    evaluation = evaluation_of("all", samples=3)
    text = evaluation.to_json()
    content: dict[str, Any] = json.loads(text)
    assert content["clips"] == 3
    assert content["horizons"]["1"].keys() >= {"psnr", "ssim", "skill", "skill_likeliest", "mse", "energy_score"}
    assert content["horizons"]["1"]["coverage"] is None
    assert content["best_of"]["7"].keys() == {"mse", "psnr"}
    assert content["baselines"].keys() == {"persistence", "climatology"}
    assert content["reconstruction"]["psnr"] == pytest.approx(20, abs=1e-3)
    assert content.keys() >= {"surprise", "effective_components", "codebook_perplexity", "definitions"}
    again = Evaluation.from_json(text, "file")
    assert again.to_json() == text
    assert again.horizons[7] == evaluation.horizons[7] or math.isnan(again.horizons[7].coverage)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"definitions": {}, "clips": 3}'])
def test_other_json_is_no_evaluation(text: str) -> None:
    with pytest.raises(AimeError, match=r"^file: no evaluation: .*aime evaluate"):
        Evaluation.from_json(text, "file")


def test_a_run_is_evaluated_on_its_held_out_episodes(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    out = tmp_path / "scores" / "evaluation.json"
    evaluation = evaluate_run(run.path, context=2, horizon=6, samples=2, out=out)
    assert evaluation.split == "held-out"
    assert evaluation.data == str(run.data)
    assert evaluation.clips == 4
    assert out.read_text(encoding="utf-8") == evaluation.to_json()
    assert evaluate_run(run.path, context=2, horizon=6, samples=2).to_json() == evaluation.to_json()


def test_other_data_is_taken_whole(make_run: MakeRun) -> None:
    run, other = make_run(), make_run()
    evaluation = evaluate_run(run.path, other.data, context=2, horizon=6, samples=1, clips=3)
    assert (evaluation.split, evaluation.clips) == ("all", 3)


def test_a_part_of_the_training_data_is_refused(make_run: MakeRun) -> None:
    run = make_run()
    shard = next(run.data.glob("*.h5"))
    with pytest.raises(AimeError, match=rf"{shard}: is a part of .* trained on.*--data {run.data}"):
        evaluate_run(run.path, shard, context=2, horizon=6)


def test_short_episodes_are_refused_with_the_remedy(make_run: MakeRun) -> None:
    run = make_run()
    with pytest.raises(AimeError, match=r"longest unseen episode has 20 frames, expected 50.*--horizon 15 or less"):
        evaluate_run(run.path)
    with pytest.raises(AimeError, match=r"20 frames, expected 75.*record longer"):
        evaluate_run(run.path, context=30)


@pytest.mark.parametrize(
    ("size", "width", "named"), [(16, 2, "image size is 16, expected 32"), (32, 3, "width is 3, expected 2")]
)
def test_another_world_is_refused(make_run: MakeRun, size: int, width: int, named: str) -> None:
    run, other = make_run(), make_run(size=size, action_width=width)
    with pytest.raises(AimeError, match=named) as caught:
        evaluate_run(run.path, other.data, context=2, horizon=6)
    assert str(other.data) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["context", "horizon", "samples", "clips"])
def test_numbers_below_one_are_refused(make_run: MakeRun, name: str) -> None:
    arguments: dict[str, Any] = {"context": 2, "horizon": 6, "samples": 2, "clips": 1, name: 0}
    with pytest.raises(AimeError, match=rf"^{name} is 0; expected 1 or more"):
        evaluate_run(make_run().path, **arguments)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AimeError, match="not a run"):
        evaluate_run(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_named(make_run: MakeRun) -> None:
    with pytest.raises(AimeError, match=r"^device is cuda; expected a CUDA GPU and found none"):
        evaluate_run(make_run().path, device="cuda")
