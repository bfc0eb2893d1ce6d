"""Results of an ablation: one typed row per variant, as JSON and as a table."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Generic, NamedTuple

from aime.benchmarking.ablation.variants import VARIANTS
from aime.inference.evaluate import ScoredRun
from aime.inference.evaluation import Figures, Leaf, mapped
from aime.inference.summary import Drawn, figures_of
from aime.primitives.config_io import nan_as_null, to_plain
from aime.primitives.interval_text import NO_INTERVAL, bounds_text, counted, number_text
from aime.primitives.intervals import Bounds, Interval, bounds_of, resampled_counts

HORIZONS = (1, 5, 15, 45)
"""Horizons in frames whose scores are shown."""


@dataclass(frozen=True)
class Scores(Generic[Leaf]):
    """Scores of a variant; `Leaf` is what each score is: a number or an interval."""

    skill: dict[int, Leaf]
    """Skill of the mean of the sampled futures, by horizon in frames."""
    skill_likeliest: dict[int, Leaf]
    """Skill of the most likely future, by horizon in frames."""
    reconstruction_psnr: Leaf
    """In dB."""
    prior_nll: Leaf
    """In nats per frame. It depends on the scale of the latents, which differs between trainings."""
    kl_z: Leaf
    """In nats per frame."""
    effective_components: Leaf
    codebook_perplexity: Leaf

    @classmethod
    def of(cls, figures: Figures[Leaf]) -> Scores[Leaf]:
        """The scores of an evaluation."""
        shown = [horizon for horizon in HORIZONS if horizon in figures.horizons]
        return cls(
            skill={horizon: figures.horizons[horizon].skill for horizon in shown},
            skill_likeliest={horizon: figures.horizons[horizon].skill_likeliest for horizon in shown},
            reconstruction_psnr=figures.reconstruction.psnr,
            prior_nll=figures.prior_nll,
            kl_z=figures.kl_z,
            effective_components=figures.effective_components,
            codebook_perplexity=figures.codebook_perplexity,
        )


@dataclass(frozen=True, kw_only=True)
class Row(Scores[float]):
    """The scores of one variant on the validation part."""

    variant: str
    without: str
    """The part that is left out."""
    steps: int
    """Optimizer steps within the wall time."""
    minutes: float
    """Wall time of training."""
    peak_memory_mb: float
    """Of the training process (on a GPU, of its tensors), in MiB; NaN if unknown."""
    intervals: Scores[Bounds | None]
    """95 % intervals over episodes."""
    differences: Scores[Interval] | None = None
    """Paired differences to the complete model on the same clips; None for the complete model and if clips differ."""


class Trained(NamedTuple):
    """How a variant was trained."""

    steps: int
    minutes: float
    peak_memory_mb: float


def make_row(variant: str, judged: ScoredRun, trained: Trained, complete: ScoredRun | None) -> Row:
    """A variant's row: training, scores, and differences to the complete model."""
    differences = None
    if complete is not None and complete.seeds == judged.seeds:
        differences = paired_differences(judged, complete)
    return Row(
        **vars(Scores.of(judged.evaluation)),
        variant=variant,
        without=VARIANTS[variant].without,
        **trained._asdict(),
        intervals=Scores.of(judged.evaluation.intervals),
        differences=differences,
    )


def paired_differences(judged: ScoredRun, base: ScoredRun) -> Scores[Interval]:
    """Differences of scores to another model on the same clips, with paired intervals."""
    number = judged.evaluation.episodes
    counts = resampled_counts(number)
    ours, theirs = (Scores.of(figures_of(each.scores, each.episodes, counts)) for each in (judged, base))

    def difference(own: float, other: float, drawn: Drawn, of_other: Drawn) -> Interval:
        return Interval.around(own - other, bounds_of(own - other, (drawn - of_other).numpy(), number))

    points = Scores.of(judged.evaluation), Scores.of(base.evaluation)
    found: Scores[Interval] = mapped(difference, *points, ours, theirs)
    return found


@dataclass(frozen=True)
class Ablation:
    """The results of all variants."""

    data: str
    split: str
    """Which part of the data was evaluated, and whether it is known to be unseen."""
    episodes: int
    """Number of episodes that the clips are from."""
    clips: int
    context: int
    """Number of observed frames."""
    samples: int
    """Sampled futures per clip."""
    seed: int
    """Training seed of all variants."""
    rows: tuple[Row, ...]

    def to_json(self) -> str:
        """JSON with every field by its name; unknown values are null."""
        return json.dumps(nan_as_null(to_plain(self)), indent=1, allow_nan=False)

    def to_markdown(self) -> str:
        """Two tables: scores, and differences to the complete model."""
        names = [*_named(self.rows[0]), "steps", "memory, MiB"]
        heading = (
            f"{counted(self.clips, 'clip')} from {counted(self.episodes, 'episode')} of {self.data} ({self.split}), "
            f"context {self.context}, {self.samples} futures"
        )
        lines = [
            f"# Ablation: {heading}, seed {self.seed}",
            "",
            *_table(["variant", *names], [[row.variant, *_cells(row)] for row in self.rows]),
        ]
        others = [[row.variant, row.without, *_changes(row.differences)] for row in self.rows if row.differences]
        if others:
            named = ["variant", "without", *_named(self.rows[0])]
            lines += ["", "Paired differences to the complete model:", "", *_table(named, others)]
        intervals = "in brackets 95 % intervals over episodes" if self.episodes > 1 else NO_INTERVAL
        lines += [
            "",
            "Skill by horizon in frames, of the mean of the sampled futures and of the most likely future (likeliest). "
            "NLL and KL of the prior one step ahead, in nats per frame; the NLL depends on the scale of the latents, "
            f"which differs between trainings. One training per variant; {intervals}, which do not include the "
            "variation between trainings.",
        ]
        return "\n".join(lines) + "\n"


_FORMS = {
    "reconstruction_psnr": ("PSNR, dB", ".1f"),
    "prior_nll": ("NLL", ".1f"),
    "kl_z": ("KL", ".1f"),
    "effective_components": ("components", ".1f"),
    "codebook_perplexity": ("perplexity", ".0f"),
}


def _named(scores: Scores[Leaf]) -> dict[str, tuple[Leaf, str]]:
    """Every score by its column name, with its format."""
    return {
        **{f"skill {horizon}": (value, ".2f") for horizon, value in scores.skill.items()},
        **{f"likeliest {horizon}": (value, ".2f") for horizon, value in scores.skill_likeliest.items()},
        **{name: (getattr(scores, field), form) for field, (name, form) in _FORMS.items()},
    }


def _cells(row: Row) -> list[str]:
    ends = _named(row.intervals)
    scores = [_text(value, ends[name][0], form) for name, (value, form) in _named(row).items()]
    return [*scores, str(row.steps), _text(row.peak_memory_mb, None, ".0f")]


def _changes(differences: Scores[Interval]) -> list[str]:
    return [_text(each.mean, each.bounds, f"+{form}") for each, form in _named(differences).values()]


def _text(value: float, bounds: Bounds | None, form: str) -> str:
    if not math.isfinite(value):
        return "–"
    text = number_text(value, form) if bounds is None else f"{number_text(value, form)} [{bounds_text(bounds, form)}]"
    return text.replace("-", "−")


def _table(names: list[str], rows: list[list[str]]) -> list[str]:
    rule = ["---" if name in ("variant", "without") else "---:" for name in names]
    return [f"| {' | '.join(cells)} |" for cells in (names, rule, *rows)]
