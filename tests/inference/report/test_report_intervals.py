"""Bands and intervals of the report and of the terminal's table, and what stands there of a single episode."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.console import Console
from tests.inference.worlds import Oracle, drifting_clips

from aime.cli.evaluate import _tables
from aime.inference.evaluate import score_clips
from aime.inference.evaluation import Evaluation
from aime.inference.report.horizon_charts import psnr_chart, skill_chart
from aime.inference.report.layout import _certainty, _table
from aime.inference.summary import summarise


def evaluation_of(episodes: Sequence[int]) -> Evaluation:
    scores = score_clips(Oracle("uncertain"), drifting_clips(4, 8), range(4), 2, 9)
    return summarise(scores, episodes, 9, run="run", data="data", split="test", weights="0")


def terminal(evaluation: Evaluation) -> list[str]:
    console = Console(width=80, highlight=False, record=True, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        for part in _tables(evaluation):
            console.print(part, markup=False)
    return captured.get().splitlines()


def test_curves_have_bands_and_figures_intervals() -> None:
    evaluation = evaluation_of([0, 1, 2, 3])
    assert skill_chart(evaluation).count("fill-opacity: 0.18") == 2
    assert psnr_chart(evaluation).count("fill-opacity: 0.18") == 3
    low, high = evaluation.intervals.horizons[5].psnr or (0, 0)
    assert f'<span class="interval">{low:.1f}…{high:.1f}</span>' in _table(evaluation)
    lines = terminal(evaluation)
    assert max(map(len, lines)) <= 80
    assert any(f"{low:.1f}…{high:.1f}" in line for line in lines)
    assert "4 clips of 4 episodes" in lines[0]
    assert not any("…" in line and re.search(r"\d…\s", line) for line in lines), "no interval is cut off"


def test_of_one_episode_it_is_said_that_there_are_none() -> None:
    evaluation = evaluation_of([3, 3, 3, 3])
    assert "fill-opacity" not in skill_chart(evaluation)
    assert "one episode" in _certainty(evaluation)
    assert 'class="interval"' not in _table(evaluation)
    lines = terminal(evaluation)
    assert "4 clips of 1 episode" in lines[0] and "one episode: no intervals" in " ".join(lines)
    assert not any("…" in line for line in lines[2:])
