"""What an ablation came to: one typed row a variant, as JSON and as a table."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from aime.inference.evaluation import Evaluation
from aime.primitives.plain import nan_as_null, to_plain
from aime.training.ablation.variants import COMPLETE, VARIANTS

HORIZONS = (1, 5, 15, 45)
"""Frames ahead whose scores are shown, where they were predicted."""


@dataclass(frozen=True)
class Row:
    """The scores of one variant on held-out episodes; see `aime.inference.evaluation.DEFINITIONS`."""

    variant: str
    without: str
    """What it leaves out."""
    steps: int
    """Optimizer steps in the wall time that all variants had."""
    minutes: float
    """Wall time of training."""
    peak_memory_mb: float
    """Of the process that trained (on a GPU, of its tensors), in MiB; NaN where it is not known."""
    skill: dict[int, float]
    """Of the mean of the sampled futures, by frames ahead."""
    skill_likeliest: dict[int, float]
    """Of the single most likely future."""
    reconstruction_psnr: float
    """In dB."""
    prior_nll: float
    """In nats per frame. Each training makes latents of its own, whose scale it depends on."""
    kl_z: float
    """In nats per frame."""
    effective_components: float
    codebook_perplexity: float


def make_row(variant: str, evaluation: Evaluation, steps: int, minutes: float, peak_memory_mb: float) -> Row:
    """A variant's row: how it was trained, and what it scores."""
    shown = [horizon for horizon in HORIZONS if horizon in evaluation.horizons]
    return Row(
        variant=variant,
        without=VARIANTS[variant].without,
        steps=steps,
        minutes=minutes,
        peak_memory_mb=peak_memory_mb,
        skill={horizon: evaluation.horizons[horizon].skill for horizon in shown},
        skill_likeliest={horizon: evaluation.horizons[horizon].skill_likeliest for horizon in shown},
        reconstruction_psnr=evaluation.reconstruction.psnr,
        prior_nll=evaluation.prior_nll,
        kl_z=evaluation.kl_z,
        effective_components=evaluation.effective_components,
        codebook_perplexity=evaluation.codebook_perplexity,
    )


@dataclass(frozen=True)
class Ablation:
    """All that was compared."""

    data: str
    split: str
    """The part of the data that was evaluated: "held-out" or "all"."""
    clips: int
    context: int
    """Frames that the models saw before they predicted."""
    samples: int
    """Sampled futures of each clip."""
    seed: int
    """That every variant was trained with."""
    rows: tuple[Row, ...]

    def to_json(self) -> str:
        """JSON with every field by its name; what is not known is null."""
        return json.dumps(nan_as_null(to_plain(self)), indent=1, allow_nan=False)

    def to_markdown(self) -> str:
        """Two tables: the scores of every variant, and how they differ from the complete model's."""
        complete = next((row for row in self.rows if row.variant == COMPLETE), None)
        names = [name for name, _, _ in _figures(self.rows[0])]
        heading = f"{self.clips} clips of {self.data} ({self.split}), context {self.context}, {self.samples} futures"
        lines = [
            f"# Ablation: {heading}, seed {self.seed}",
            "",
            *_table(["variant", *names], [[row.variant, *_cells(row, None)] for row in self.rows]),
        ]
        others = [row for row in self.rows if row.variant != COMPLETE]
        if complete is not None and others:
            rows = [[row.variant, row.without, *_cells(row, complete)] for row in others]
            lines += ["", "Difference to the complete model:", "", *_table(["variant", "without", *names], rows)]
        lines += [
            "",
            "Skill is that of the mean of the sampled futures, then that of the single most likely one, by frames "
            "ahead. NLL and KL are of the prior one step ahead, in nats per frame; each training makes latents of its "
            "own, whose scale the NLL depends on and the KL does not.",
        ]
        return "\n".join(lines) + "\n"


def _figures(row: Row) -> list[tuple[str, float, int]]:
    """Name, value and decimals of everything shown."""
    return [
        *((f"skill {horizon}", value, 2) for horizon, value in row.skill.items()),
        *((f"likeliest {horizon}", value, 2) for horizon, value in row.skill_likeliest.items()),
        ("PSNR, dB", row.reconstruction_psnr, 1),
        ("NLL", row.prior_nll, 1),
        ("KL", row.kl_z, 1),
        ("components", row.effective_components, 1),
        ("perplexity", row.codebook_perplexity, 0),
        ("steps", row.steps, 0),
        ("memory, MiB", row.peak_memory_mb, 0),
    ]


def _cells(row: Row, base: Row | None) -> list[str]:
    if base is None:
        return [_number(value, f".{decimals}f") for _, value, decimals in _figures(row)]
    pairs = zip(_figures(row), _figures(base), strict=True)
    return [_number(value - other, f"+.{decimals}f") for (_, value, decimals), (_, other, _) in pairs]


def _number(value: float, form: str) -> str:
    return format(value, form).replace("-", "−") if math.isfinite(value) else "–"


def _table(names: list[str], rows: list[list[str]]) -> list[str]:
    rule = ["---" if name in ("variant", "without") else "---:" for name in names]
    return [f"| {' | '.join(cells)} |" for cells in (names, rule, *rows)]
