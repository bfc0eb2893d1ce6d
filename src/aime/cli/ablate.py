"""`aime ablate`: the complete model and variants without one part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from rich.console import Console

from aime.benchmarking.ablation.variants import VARIANTS, complete
from aime.cli.arguments import gather, parse, refuse_unknown_flags, value_of, wants_help, words
from aime.cli.train import DATA, require_preset, required, sized_to_data
from aime.cli.train_help import DATA_ROWS, DURATION_ROWS, SHARED, Screen, show_help
from aime.data.sources import join_sources
from aime.errors import expect_some_of
from aime.training.config import TrainConfig
from aime.training.presets import preset_run

OUT = "runs/ablation"
HELP = Screen(
    "usage: aime ablate [PRESET] --data DIR (--steps N | --minutes M) [FLAGS]",
    "Train the complete model and variants without one part, for equal wall time,\n"
    "and compare them. The same command continues after an interruption.",
    {
        "ablation": (
            ("variants A,B", "those to train; by default all"),
            ("out DIR", f"runs and comparison; by default {OUT}"),
            ("context N", "frames observed before a prediction"),
            ("horizon N", "frames to predict"),
            ("samples N", "sampled futures per clip"),
            ("clips N", "to evaluate at most; by default 64"),
        ),
        "training": (*DATA_ROWS, *DURATION_ROWS),
        **SHARED,
    },
)


@dataclass(frozen=True, kw_only=True)
class AblationOptions(TrainConfig):
    """Train the complete model and variants without one part, for equal wall time, and compare them.

    Variants are trained one after another and evaluated on the validation part. OUT/ablation.md and OUT/ablation.json
    contain the comparison. After an interruption, the same command continues. The complete model has attention schema,
    context, mixture prior, adversary and RGB, whatever the defaults of `aime train` are.
    """

    out: Path = Path(OUT)
    """Directory to write: a run directory for each variant, and the comparison."""
    variants: str = ",".join(VARIANTS)
    """Variants to train, separated by commas."""
    resume: bool = False
    """No effect: an ablation always continues."""
    context: int = 5
    """Number of frames that the model observes."""
    horizon: int = 45
    """Number of frames to predict."""
    samples: int = 16
    """Sampled futures per clip."""
    clips: int | None = None
    """Maximum number of clips, 64 by default. The first clip of every episode is used before any second one."""


def main(arguments: list[str]) -> int:
    """Run `aime ablate` and return the exit status."""
    options = configure(arguments)
    from aime.benchmarking.ablation.study import run_ablation
    from aime.inference.request import EvaluationRequest

    variants = expect_some_of(words(options.variants), VARIANTS, "variant")
    judged = EvaluationRequest(
        context=options.context, horizon=options.horizon, samples=options.samples, clips=options.clips
    )
    console = Console(stderr=True)
    ablation = run_ablation(
        options, variants, judged, lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)
    )
    print(ablation.to_markdown(), end="")
    print(f"\ntable: {options.out / 'ablation.md'}, numbers: {options.out / 'ablation.json'}")
    return 0


def configure(arguments: Sequence[str]) -> AblationOptions:
    """The config of an ablation: the preset with the data's sizes and every part on, then the flags.

    Raises:
        AimeError: if an argument is invalid, or a file that it names cannot be read.
    """
    named = bool(arguments) and not arguments[0].startswith("-")
    flags = gather(list(arguments[1:] if named else arguments), "--data", join_sources)
    preset = arguments[0] if named else value_of(flags, "--preset") or "tiny"
    if wants_help(flags):
        require_preset(preset)
        example = _options(complete(preset_run(preset, "DIR", Path(OUT), 1, 64)))
        show_help(HELP, AblationOptions, "ablate", flags, example)
    refuse_unknown_flags(AblationOptions, "ablate", flags)
    require_preset(preset)
    config = sized_to_data(preset, required(flags, "--data", DATA), Path(OUT), flags)
    return parse(AblationOptions, "ablate", ["--preset", preset, *flags], _options(complete(config)))


def _options(config: TrainConfig) -> AblationOptions:
    return AblationOptions(**{field.name: getattr(config, field.name) for field in fields(TrainConfig)})
