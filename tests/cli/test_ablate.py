"""`aime ablate`: variants trained apart, compared in a table, and not trained again."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.inference.worlds import Oracle, drifting_clips
from torch import Tensor

from aime.benchmarking.ablation.results import Ablation, Trained, make_row
from aime.benchmarking.ablation.variants import VARIANTS
from aime.cli.ablate import configure
from aime.cli.main import main
from aime.data import Episode, write_shard
from aime.inference.evaluate import ScoredRun, score_clips
from aime.inference.summary import summarise

SMALL = (
    "--steps 2 --batch 1 --length 4 --held-out 0.5 --overshoot.steps 2 --device cpu "
    "--precision fp32 "
    "--context 2 --horizon 5 --samples 2 --clips 1"
)


@pytest.fixture
def data(tmp_path: Path, make_episode: Callable[..., Episode]) -> str:
    write_shard(tmp_path / "data" / "0.h5", [make_episode(12, seed, size=32) for seed in range(8)])
    return str(tmp_path / "data")


def test_variants_are_trained_compared_and_not_trained_again(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], make_episode: Callable[..., Episode]
) -> None:
    out = tmp_path / "ablation"
    line = ["ablate", "--data", data, "--out", str(out), "--variants", "complete,no-context", *SMALL.split()]
    assert main(line) == 0
    printed = capsys.readouterr()
    assert "no-context (2 of 2): training" in printed.err
    assert (out / "ablation.md").read_text(encoding="utf-8") in printed.out
    content = json.loads((out / "ablation.json").read_text(encoding="utf-8"))
    assert [row["variant"] for row in content["rows"]] == ["complete", "no-context"]
    for row in content["rows"]:
        assert row["steps"] == 2
        assert row["skill"].keys() == row["skill_likeliest"].keys() == {"1", "5"}
        assert row["peak_memory_mb"] > 100
        assert all(math.isfinite(row[name]) for name in ("reconstruction_psnr", "prior_nll", "kl_z"))
    weights = (out / "complete" / "checkpoint" / "ema.safetensors").read_bytes()
    assert main(line) == 0
    assert "training" not in capsys.readouterr().err
    assert (out / "complete" / "checkpoint" / "ema.safetensors").read_bytes() == weights
    assert main([*line, "--seed", "1"]) == 2
    message = capsys.readouterr().err
    assert "seed is 0 in the run that exists; expected 1" in message
    assert message.count("\n") == 1
    write_shard(Path(data) / "1.h5", [make_episode(12, 99, size=32)])
    assert main(line) == 2
    message = capsys.readouterr().err
    assert "has 1 new episodes and lacks 0 of those" in message and message.count("\n") == 1


def test_the_complete_model_has_every_part_whatever_the_defaults(data: str, tmp_path: Path) -> None:
    config = configure(["--data", data, "--minutes", "2", "--adversary.vote", "0.7"])
    assert (config.preset, config.minutes, config.steps, config.out) == ("tiny", 2.0, None, Path("runs/ablation"))
    assert config.model.attention.kind == "schema"
    assert (config.model.perceiver.kind, config.model.prior.kind) == ("causal", "mixture")
    assert (config.adversary.enabled, config.adversary.vote, config.balancer) == (True, 0.7, "rgb")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--minutes 1", "--data is missing"),
        ("--data {data}", "neither --steps nor --minutes"),
        (
            "--data {data} --steps 1 --variants complete,no-contex",
            f"'no-contex'; expected some of {', '.join(VARIANTS)}",
        ),
        ("--data {data} --steps 1 --variants ,", "no variant is named"),
        ("--data {data} --steps 1 --variant sum", "did you mean --variants?"),
        ("--data {data} --steps 1 --samples 0", "samples is 0"),
        ("--data {data} --steps 1 --horizon 0", "horizon is 0"),
        ("--data {data}/none --steps 1", "{data}/none"),
        ("tinny --data {data} --steps 1", "no preset 'tinny'"),
    ],
)
def test_a_mistake_is_one_line_and_trains_nothing(
    arguments: str, expected: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["ablate", *arguments.format(data=data).split(), "--out", str(out)]) == 2
    message = capsys.readouterr().err
    assert expected.format(data=data) in message
    assert message.count("\n") == 1
    assert not out.exists()


def judged(skill: Tensor) -> ScoredRun:
    """An evaluation of eight clips, two of each episode, whose errors are those of a skill that is given."""
    episodes = np.repeat(np.arange(4), 2)
    scores = score_clips(Oracle("mean image"), drifting_clips(8, 7), range(8), 2, 2)
    scores = scores._replace(mse=scores.mean_image_ahead * (1 - skill[:, None]))
    evaluation = summarise(scores, episodes, 2, run="run", data="data", split="held-out", weights="0")
    return ScoredRun(evaluation, scores, episodes, list(range(8)))


def test_the_table_shows_paired_differences_to_the_complete_model() -> None:
    hard = torch.linspace(-0.4, 0.4, 8)
    complete, other = judged(0.5 + hard), judged(0.3 + hard)
    trained = Trained(10, 1.0, 1024.4)
    rows = (
        make_row("complete", complete, trained, None),
        make_row("sum", other, trained._replace(peak_memory_mb=math.nan), complete),
    )
    interval, difference = rows[1].intervals.skill[1], rows[1].differences
    assert interval is not None and interval.high - interval.low > 0.3
    assert difference is not None and difference.skill[1].mean == pytest.approx(-0.2, abs=1e-3)
    # what is hard for both is no part of it
    assert difference.skill[1].high - difference.skill[1].low < 0.02
    ablation = Ablation("bundled:cartpole", "held-out", 4, 8, 5, 16, 0, rows)
    scores, differences = ablation.to_markdown().split("Paired differences to the complete model")
    assert re.search(r"\| sum \| 0\.30 \[.*….*\] \|", scores)
    assert "8 clips from 4 episodes" in scores
    assert "| 1024 |" in scores and "| – |" in scores
    assert re.search(r"\| sum \| RGB: gradients are summed \| −0\.20 \[−0\.2", differences)
    assert differences.count("| complete |") == 0
    assert json.loads(ablation.to_json())["rows"][1]["peak_memory_mb"] is None
    alone = Ablation("bundled:cartpole", "held-out", 4, 8, 5, 16, 0, rows[:1]).to_markdown()
    assert "Difference" not in alone


def test_other_clips_have_no_paired_difference() -> None:
    complete = judged(torch.zeros(8))
    assert make_row("sum", complete._replace(seeds=[0] * 8), Trained(1, 1.0, 1.0), complete).differences is None
