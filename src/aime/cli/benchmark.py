"""`aime benchmark`: protocols that others have set, from their data to one table."""

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
from aime.errors import AimeError, expect_some_of
from aime.primitives.signals import exit_status
from aime.training.config import TrainConfig
from aime.training.presets import preset_run

OUT = "runs/dmc-vb"
KINDS = ("dmc-vb",)
USAGE = "usage: aime benchmark dmc-vb DIR (--steps N | --minutes M) [--preset tiny] [--out OUT] [OPTIONS]"


@dataclass(frozen=True, kw_only=True)
class DmcVbOptions(TrainConfig):
    """Train on each distractor level of DIR, probe the state, clone behaviour, play under every distractor, compare.

    DIR has a data set in each of none, static (or static_medium) and dynamic (or dynamic_medium), as `aime import
    dmc-vb` or `aime collect --distractor` makes them. Each level trains a world model of its own, in OUT/LEVEL/seed-N.
    A ridge regression tells the state from its belief and latent, judged on the test part; a policy on belief and
    latent is cloned from the level's own episodes, and plays in dm_control under no, a still and a moving distractor.
    The table is in OUT/benchmark.md, beside it .json and .png. The same command goes on after an interruption; what is
    finished is kept.
    """

    data: str
    """Not to be given: DIR says it."""
    out: Path = Path(OUT)
    """The directory to write: a run directory for each level and seed, and the comparison."""
    levels: str = ",".join(LEVELS)
    """The levels to train on, separated by commas."""
    seeds: int = 1
    """Trainings on each level: with --seed and the seeds after it."""
    resume: bool = False
    """Without effect: a benchmark always goes on with what is there."""
    env: str | None = None
    """Where clones play, such as dmc:walker_walk. By default the environment that the data was recorded in, if it says
    so; imported data does not."""
    episodes: int = 10
    """Played by each clone under each distractor; 0 for none."""
    episode_steps: int | None = None
    """Frames of such an episode. By default those of 1000 simulated steps."""
    probe_frames: int = 20_000
    """The most frames that the probe is fitted to, and the most that it is judged on."""
    imitation: ImitationConfig = field(default_factory=ImitationConfig)


def main(arguments: list[str]) -> int:
    """Run `aime benchmark KIND DIR` and return the exit status."""
    if not arguments or (wants_help(arguments) and arguments[0] not in KINDS):
        print(f"{USAGE}\n\n  dmc-vb  what distractors cost a representation and a policy\n")
        print("aime benchmark dmc-vb --help explains the rest.")
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

    def tell(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    tell(plan.describe())
    try:
        benchmark = run_benchmark(plan, tell, stages)
    except KeyboardInterrupt as error:
        print("aime benchmark: interrupted; what is finished is kept: run the same command to go on", file=sys.stderr)
        return exit_status(error)
    _show(benchmark)
    print(f"table: {options.out / 'benchmark.md'}, numbers: {options.out / 'benchmark.json'}")
    return 0


def configure(arguments: Sequence[str]) -> tuple[DmcVbOptions, Path]:
    """What the arguments ask for, the preset sized to the data, and the data's directory.

    Raises:
        AimeError: if an argument does not fit, or what it names cannot be read.
    """
    named = bool(arguments) and not arguments[0].startswith("-")
    flags = list(arguments[1:] if named else arguments)
    preset = value_of(flags, "--preset") or "tiny"
    if wants_help(flags):
        print(f"{USAGE}\n")
        require_preset(preset)
        return parse(DmcVbOptions, "benchmark", flags, _options(preset_run(preset, "DIR", Path(OUT), 1, 64))), Path()
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
    for heading, table in ((title(benchmark), main_table(benchmark)), ("R² by field", field_table(benchmark))):
        if table is None:
            continue
        drawn = Table(title=heading, title_justify="left", box=box.SIMPLE)
        for number, name in enumerate(table.heading):
            drawn.add_column(name, justify="right" if number else "left")
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn)
    console.print(playing(benchmark), markup=False, highlight=False, soft_wrap=True)
