"""`aime benchmark`: the DMC-VB protocol."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from aime.agents.imitation import ImitationConfig
from aime.benchmarking.dmc_vb.levels import LEVELS, find_level
from aime.benchmarking.dmc_vb.plan import ProtocolConfig
from aime.benchmarking.dmc_vb.results import Benchmark
from aime.benchmarking.dmc_vb.table import field_table, main_table, playing, title
from aime.cli.arguments import parse, refuse_unknown_flags, value_of, wants_help, words
from aime.cli.progress import stages
from aime.cli.train import require_preset, sized_to_data
from aime.cli.train_help import DATA_ROWS, DURATION_ROWS, SHARED, Screen, show_help
from aime.errors import AimeError, expect_some_of
from aime.primitives.signals import exit_status
from aime.training.config import TrainConfig
from aime.training.presets import preset_run

OUT = "runs/dmc-vb"
KINDS = ("dmc-vb",)
USAGE = "usage: aime benchmark dmc-vb DIR (--steps N | --minutes M) [FLAGS]"
HELP = Screen(
    USAGE,
    "Train a world model on each distractor level of DIR, then probe it, clone a\n"
    "policy and evaluate it. The same command continues after an interruption.",
    {
        "benchmark": (
            ("preset NAME", "tiny, fast or base"),
            ("out OUT", f"runs and results; by default {OUT}"),
            ("levels A,B", f"to train on; by default {','.join(LEVELS)}"),
            ("seeds N", "trainings per level"),
            ("env NAME", "environment of the evaluation: dmc:walker_walk"),
            ("episodes N", "per policy and distractor; 0 for none"),
            ("probe-frames N", "to fit and to evaluate the probe on"),
        ),
        "training": (*DATA_ROWS[1:], *DURATION_ROWS),
        **SHARED,
    },
)


@dataclass(frozen=True, kw_only=True)
class DmcVbOptions(TrainConfig):
    """Train a world model on each distractor level of DIR, then probe it, clone a policy and evaluate the policy.

    DIR contains the data sets none, static (or static_medium) and dynamic (or dynamic_medium), written by `aime import
    dmc-vb` or `aime collect --distractor`. The runs are in OUT/LEVEL/seed-N. A ridge regression predicts the state
    from belief and latent. A policy is cloned from the level's episodes and plays in dm_control with each kind of
    distractor. OUT/benchmark.md, .json and .png contain the results. After an interruption, the same command continues.
    """

    data: str
    """Do not use: DIR is the data."""
    out: Path = Path(OUT)
    """Directory to write: a run directory for each level and seed, and the results."""
    levels: str = ",".join(LEVELS)
    """Levels to train on, separated by commas."""
    seeds: int = 1
    """Trainings per level, with --seed and the seeds after it."""
    resume: bool = False
    """No effect: a benchmark always continues."""
    env: str | None = None
    """Environment of the evaluation, such as dmc:walker_walk. By default the one that the data was recorded in.
    Imported data does not name it."""
    episodes: int = 10
    """Episodes per policy and distractor; 0 for no evaluation."""
    episode_steps: int | None = None
    """Frames per episode. By default those of 1000 simulator steps."""
    probe_frames: int = 20_000
    """Maximum number of frames to fit the probe to, and to evaluate it on."""
    imitation: ImitationConfig = field(default_factory=ImitationConfig)


def main(arguments: list[str]) -> int:
    """Run `aime benchmark KIND DIR` and return the exit status."""
    if not arguments or (wants_help(arguments) and arguments[0] not in KINDS):
        print(f"{USAGE}\n\n  dmc-vb  the effect of visual distractors on representations and policies\n")
        print("aime benchmark dmc-vb --help shows its settings.")
        return 0
    kind, rest = arguments[0], arguments[1:]
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "see `aime benchmark --help`"
        raise AimeError(f"there is no benchmark '{kind}'; expected {', '.join(KINDS)}: {hint}")
    return dmc_vb(rest)


def dmc_vb(arguments: Sequence[str]) -> int:
    """Run `aime benchmark dmc-vb`."""
    options, source = configure(arguments)
    from aime.benchmarking.dmc_vb.plan import make_plan
    from aime.benchmarking.dmc_vb.study import run_benchmark

    plan = make_plan(_protocol(options, source), options)
    console = Console(stderr=True)

    def report(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    report(plan.describe())
    try:
        benchmark = run_benchmark(plan, report, stages)
    except KeyboardInterrupt as error:
        print(
            "aime benchmark: interrupted; finished steps are saved: run the same command to continue", file=sys.stderr
        )
        return exit_status(error)
    _show(benchmark)
    print(f"table: {options.out / 'benchmark.md'}, numbers: {options.out / 'benchmark.json'}")
    return 0


def configure(arguments: Sequence[str]) -> tuple[DmcVbOptions, Path]:
    """The config of a benchmark, with the data's sizes, and the data's directory.

    Raises:
        AimeError: if an argument is invalid, or a file that it names cannot be read.
    """
    named = bool(arguments) and not arguments[0].startswith("-")
    flags = list(arguments[1:] if named else arguments)
    preset = value_of(flags, "--preset") or "tiny"
    if wants_help(flags):
        require_preset(preset)
        example = _options(preset_run(preset, "DIR", Path(OUT), 1, 64))
        show_help(HELP, DmcVbOptions, "benchmark dmc-vb", flags, example)
    if not named:
        raise AimeError(f"no directory is named; expected one with {', '.join(LEVELS)} in it: {USAGE}")
    refuse_unknown_flags(DmcVbOptions, "benchmark", flags)
    if value_of(flags, "--data") is not None:
        raise AimeError(f"--data is given; expected the directory alone, {arguments[0]}: leave the flag out")
    require_preset(preset)
    levels = expect_some_of(words(value_of(flags, "--levels") or ",".join(LEVELS)), LEVELS, "level")
    data = str(find_level(Path(arguments[0]), levels[0]))
    config = sized_to_data(preset, data, Path(OUT), flags)
    return parse(DmcVbOptions, "benchmark", ["--preset", preset, *flags], _options(config)), Path(arguments[0])


def _options(config: TrainConfig) -> DmcVbOptions:
    return DmcVbOptions(**{each.name: getattr(config, each.name) for each in fields(TrainConfig)})


def _protocol(options: DmcVbOptions, source: Path) -> ProtocolConfig:
    return ProtocolConfig(
        source=source,
        levels=expect_some_of(words(options.levels), LEVELS, "level"),
        seeds=options.seeds,
        environment=options.env,
        episodes=options.episodes,
        episode_steps=options.episode_steps,
        probe_frames=options.probe_frames,
        imitation=options.imitation,
    )


def _show(benchmark: Benchmark) -> None:
    console = Console()
    for heading, table in (
        (title(benchmark), main_table(benchmark)),
        ("R² by field of the state", field_table(benchmark)),
    ):
        if table is None:
            continue
        drawn = Table(title=heading, title_justify="left", box=box.SIMPLE)
        for number, name in enumerate(table.heading):
            drawn.add_column(name, justify="right" if number else "left")
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn)
    console.print(playing(benchmark), markup=False, highlight=False, soft_wrap=True)
