"""`aime evaluate`: how good a run's predictions are, as a JSON file and a short table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from aime.cli.arguments import parse
from aime.cli.progress import counting

if TYPE_CHECKING:
    from aime.inference.evaluation import Evaluation, StateScores

SHOWN_HORIZONS = (1, 5, 15, 45)


@dataclass(frozen=True)
class EvaluateOptions:
    """Measure a run's predictions on episodes it has never seen: PSNR, SSIM and skill for each horizon.

    Where the model and the data have a state, also how well that is foretold.
    """

    run: tyro.conf.Positional[Path]
    """The run directory that `aime train` wrote, or bundled:cartpole."""
    out: Path
    """The JSON file to write."""
    data: str | None = None
    """A directory of shards, one shard, or bundled:NAME; several by commas. By default the held-out part of the
    run's own data."""
    context: int = 5
    """Frames that the model sees."""
    horizon: int = 45
    """Frames that it then predicts."""
    samples: int = 16
    """Sampled futures of each clip."""
    clips: int | None = None
    """At most so many clips; by default 64, the first of every episode before the second of any."""
    device: Literal["auto", "cpu", "cuda"] = "auto"


def main(arguments: list[str]) -> int:
    """Run `aime evaluate` and return the exit status."""
    options = parse(EvaluateOptions, "evaluate", arguments)
    from aime.inference.evaluate import evaluate_run

    with counting("evaluating") as progress:
        evaluation = evaluate_run(
            options.run,
            options.data,
            options.context,
            options.horizon,
            samples=options.samples,
            clips=options.clips,
            device=options.device,
            out=options.out,
            progress=progress,
        )
    Console().print(_table(evaluation))
    print(_rest(evaluation))
    if evaluation.states:
        print(_states(evaluation.states))
    print(f"scores: {options.out}")
    return 0


def _table(evaluation: Evaluation) -> Table:
    """The scores at a few horizons."""
    heading = f"{evaluation.clips} clips of {evaluation.data} ({evaluation.split}), context {evaluation.context}"
    table = Table(title=heading, title_justify="left", box=box.SIMPLE)
    for name in ("horizon", "skill", "SSIM", "PSNR, dB", "best of 8", "held still", "mean image"):
        table.add_column(name, justify="right")
    baselines = evaluation.baselines
    for horizon in _shown(evaluation.horizons):
        scores = evaluation.horizons[horizon]
        others = (evaluation.best_of, baselines.persistence, baselines.climatology)
        decibels = (scores.psnr, *(each[horizon].psnr for each in others))
        numbers = (f"{scores.skill:+.2f}", f"{scores.ssim:.3f}", *(f"{each:.1f}" for each in decibels))
        table.add_row(str(horizon), *numbers)
    return table


def _rest(evaluation: Evaluation) -> str:
    """What holds for the run as a whole, in a line."""
    drawn = evaluation.reconstruction
    return (
        f"reconstruction {drawn.psnr:.1f} dB, mean image {drawn.psnr_mean_image:.1f} dB; effective components "
        f"{evaluation.effective_components:.1f}; codebook perplexity {evaluation.codebook_perplexity:.0f}"
    )


def _states(states: Mapping[int, StateScores]) -> str:
    """How well the state is foretold at a few horizons, in a line."""
    told = (f"{horizon}: {states[horizon].r2:+.2f} ({states[horizon].error:.2f})" for horizon in _shown(states))
    return f"state R² (error in spreads of the data) by horizon: {', '.join(told)}"


def _shown(scores: Mapping[int, object]) -> list[int]:
    return [each for each in SHOWN_HORIZONS if each in scores]
