"""`aime evaluate`: how good a run's predictions are, as a JSON file and a short table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from rich.console import Console
from rich.table import Table

from aime.cli.arguments import parse
from aime.cli.progress import counting

if TYPE_CHECKING:
    from aime.inference.evaluation import Evaluation

SHOWN_HORIZONS = (1, 5, 15, 45)


@dataclass(frozen=True)
class EvaluateOptions:
    """Measure a run's predictions on episodes it has never seen: PSNR, SSIM and skill for each horizon."""

    run: tyro.conf.Positional[Path]
    """The run directory that `aime train` wrote."""
    out: Path
    """The JSON file to write."""
    data: str | None = None
    """A directory of shards, one shard, or bundled:NAME. By default the held-out part of the run's own data."""
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
    print(f"scores: {options.out}")
    return 0


def _table(evaluation: Evaluation) -> Table:
    """The scores at a few horizons, and below them what holds for the run as a whole."""
    reconstruction = evaluation.reconstruction
    table = Table(
        title=f"{evaluation.clips} clips of {evaluation.data} ({evaluation.split}), context {evaluation.context}",
        caption=f"reconstruction {reconstruction.psnr:.1f} dB (mean image {reconstruction.psnr_mean_image:.1f} dB), "
        f"{evaluation.effective_components:.1f} effective components, codebook perplexity "
        f"{evaluation.codebook_perplexity:.0f}",
        title_justify="left",
        caption_justify="left",
    )
    for heading in (
        "frames ahead",
        "skill",
        "PSNR (dB)",
        "SSIM",
        "best of 8 (dB)",
        "held still (dB)",
        "mean image (dB)",
    ):
        table.add_column(heading, justify="right")
    for horizon in (each for each in SHOWN_HORIZONS if each in evaluation.horizons):
        scores, baselines = evaluation.horizons[horizon], evaluation.baselines
        decibels = (evaluation.best_of, baselines.persistence, baselines.climatology)
        table.add_row(
            str(horizon),
            f"{scores.skill:+.2f}",
            f"{scores.psnr:.1f}",
            f"{scores.ssim:.3f}",
            *(f"{each[horizon].psnr:.1f}" for each in decibels),
        )
    return table
