"""`aime evaluate`: scores of predictions, as a JSON file and a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from aime.cli.arguments import parse
from aime.cli.options import Evaluated
from aime.cli.progress import counting
from aime.primitives.interval_text import bounds_text, counted, number_text

if TYPE_CHECKING:
    from aime.inference.evaluation import Evaluation, Figures, StateScores
    from aime.primitives.intervals import Bounds

SHOWN_HORIZONS = (1, 5, 15, 45)


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Evaluated):
    """Compute scores of a run's predictions on held-out episodes, per horizon, with 95 % intervals.

    PSNR, SSIM, skill and foreground F1; the error of the state, if the data has one.
    """

    out: Path
    """The JSON file to write."""


def main(arguments: list[str]) -> int:
    """Run `aime evaluate` and return the exit status."""
    options = parse(EvaluateOptions, "evaluate", arguments)
    from aime.inference.evaluate import evaluate_run

    with counting("evaluating") as progress:
        evaluation = evaluate_run(options.run, options.request, options.out, progress)
    console = Console(highlight=False)
    for part in _tables(evaluation):
        console.print(part, markup=False)
    print(f"scores: {options.out}")
    return 0


def _tables(evaluation: Evaluation) -> Iterator[str | Table]:
    """The tables of an evaluation; each score has its interval below it or in the next column."""
    yield heading(evaluation)
    yield _by_horizon(evaluation)
    yield _overall(evaluation)
    if evaluation.states:
        yield "state: R², and error in standard deviations of the data"
        yield _states(evaluation.states, evaluation.intervals.states or {})
    share = f"; {evaluation.foreground.share:.1%} of the pixels" if evaluation.foreground else ""
    yield f"foreground F1: scene from {evaluation.foreground_from}{share}"
    yield f"state read from frames (R²): {evaluation.state_reader}"
    if evaluation.foreground or evaluation.read_states:
        yield _body_scores(evaluation)


def heading(evaluation: Evaluation) -> str:
    """The evaluated clips, and what the intervals are."""
    one = evaluation.episodes == 1
    intervals = "one episode: no intervals" if one else "95 % intervals over episodes below each score"
    return (
        f"{counted(evaluation.clips, 'clip')} of {counted(evaluation.episodes, 'episode')} of {evaluation.data} "
        f"({evaluation.unseen}), context {evaluation.context}; {intervals}"
    )


def _by_horizon(evaluation: Evaluation) -> Table:
    """Scores of frames at a few horizons."""
    best = f"best of {evaluation.best_of_samples}"
    table = Table("ahead", "skill", "SSIM", "PSNR, dB", best, "persistence", "mean image", box=box.SIMPLE, padding=0)
    for column in table.columns:
        column.justify = "right"
    for horizon in _shown(evaluation.horizons):
        figures, ends = ((each.horizons[horizon], *_decibels(each, horizon)) for each in _both(evaluation))
        (scores, *others), (bounds, *bounds_of_others) = figures, ends
        cells = [
            _cell(scores.skill, bounds.skill, ".2f"),
            _cell(scores.ssim, bounds.ssim, ".3f"),
            _cell(scores.psnr, bounds.psnr, ".1f"),
            *(_cell(*pair, ".1f") for pair in zip(others, bounds_of_others, strict=True)),
        ]
        table.add_row(str(horizon), *cells)
    return table


def _both(evaluation: Evaluation) -> tuple[Figures[Any], Figures[Any]]:
    return evaluation, evaluation.intervals


def _decibels(figures: Figures[Any], horizon: int) -> list[Any]:
    baselines = figures.baselines
    return [each[horizon].psnr for each in (figures.best_of, baselines.persistence, baselines.mean_image)]


def _overall(evaluation: Evaluation) -> Table:
    """Scores over all frames."""
    table = Table(box=None, show_header=False, padding=(0, 1))
    for justify in ("left", "right", "left"):
        table.add_column(justify=justify)
    figures, ends = _both(evaluation)
    rows: list[tuple[str, float, Bounds | None, str]] = [
        ("reconstruction, dB", figures.reconstruction.psnr, ends.reconstruction.psnr, ".1f"),
        ("mean image, dB", figures.reconstruction.psnr_mean_image, ends.reconstruction.psnr_mean_image, ".1f"),
        ("bound on -log p(frame), nats a frame", figures.frame_bound, ends.frame_bound, ".1f"),
        ("surprise of the latents", figures.latent_surprise, ends.latent_surprise, ".2f"),
        ("-log p(z), nats a frame", figures.prior_nll, ends.prior_nll, ".1f"),
        ("KL of z, nats a frame", figures.kl_z, ends.kl_z, ".1f"),
        ("KL of the mixture weights, nats a frame", figures.kl_hierarchical, ends.kl_hierarchical, ".1f"),
        ("effective components", figures.effective_components, ends.effective_components, ".1f"),
        ("codebook perplexity", figures.codebook_perplexity, ends.codebook_perplexity, ".0f"),
    ]
    if figures.masks and ends.masks:
        rows += [
            ("IoU of a body with its best slot", figures.masks.slot_iou, ends.masks.slot_iou, ".2f"),
            ("IoU of a body with the whole frame", figures.masks.whole_iou, ends.masks.whole_iou, ".2f"),
            ("best IoU on the attention grid", figures.masks.grid_iou, ends.masks.grid_iou, ".2f"),
            ("foreground ARI of the slots", figures.masks.foreground_ari, ends.masks.foreground_ari, ".2f"),
            ("attention on a body, uniform = 1", figures.masks.attention_ratio, ends.masks.attention_ratio, ".2f"),
        ]
    for name, value, bounds, form in rows:
        table.add_row(name, number_text(value, form), bounds_text(bounds, form))
    return table


def _states(states: Mapping[int, StateScores[float]], bounds: Mapping[int, StateScores[Bounds | None]]) -> Table:
    """Scores of the predicted state at a few horizons."""
    table = Table("ahead", "R²", "error", "persistence", "mean", box=box.SIMPLE, padding=0)
    for column in table.columns:
        column.justify = "right"
    for horizon in _shown(states):
        names = (("r2", ".2f"), ("error", ".2f"), ("persistence", ".2f"), ("mean", ".2f"))
        found, ends = states[horizon], bounds[horizon]
        table.add_row(str(horizon), *(_cell(getattr(found, name), getattr(ends, name), form) for name, form in names))
    return table


def _body_scores(evaluation: Evaluation) -> Table:
    """Scores of the body in predicted frames at a few horizons."""
    kinds = ("F1", "persistence", "recon-\nstruction", "R²", "persistence", "true\nframes")
    table = Table("ahead", *kinds, box=box.SIMPLE, padding=0)
    for column in table.columns:
        column.justify = "right"
    for horizon in _shown(evaluation.horizons):
        figures, ends = _seen(evaluation, horizon, math.nan), _seen(evaluation.intervals, horizon, None)
        table.add_row(str(horizon), *(_cell(*pair, ".2f") for pair in zip(figures, ends, strict=True)))
    return table


def _seen(figures: Figures[Any], horizon: int, unknown: float | None) -> list[Any]:
    """F1 of the foreground and R² of the state at one horizon; `unknown` where there is none."""
    overlaps, readings = [unknown] * 3, [unknown] * 3
    if figures.foreground:
        own = figures.foreground.horizons[horizon]
        overlaps = [own.likeliest.f1, own.persistence.f1, own.reconstruction.f1]
    if figures.read_states:
        read = figures.read_states.horizons[horizon]
        readings = [read.likeliest.r2, read.persistence.r2, read.true_frames.r2]
    return overlaps + readings


def _cell(value: float, bounds: Bounds | None, form: str) -> str:
    below = bounds_text(bounds, form)
    return f"{number_text(value, form)}\n{below}" if below else number_text(value, form)


def _shown(scores: Mapping[int, object]) -> list[int]:
    return [each for each in SHOWN_HORIZONS if each in scores]
