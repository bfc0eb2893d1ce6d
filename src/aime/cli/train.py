"""`aime train`: a preset, a data set and any field of the run's config as a flag."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aime.cli.arguments import gather, has_flag, parse, refuse_unknown_flags, value_of, wants_help
from aime.cli.train_help import TRAIN, show_help
from aime.data.sources import join_sources
from aime.errors import AimeError
from aime.primitives.signals import exit_status

if TYPE_CHECKING:
    from aime.training.config import TrainConfig
    from aime.world_model.config import ModelConfig


DATA = "a directory of shards, one shard, bundled:cartpole, or several of those, such as A B=0.3"


def main(arguments: list[str]) -> int:
    """Train as the command line says; after a signal, with the run saved, 128 and the signal's number.

    Raises:
        AimeError: if an argument, the data or the run directory does not fit.
    """
    from aime.primitives.ranks import rank
    from aime.runs.processes import process_group

    run, first, number = None, True, None
    try:
        with process_group():
            first = rank() == 0
            config = configure(arguments)
            run = config.out
            from aime.training.trainer import train

            number = train(config).signal
    except KeyboardInterrupt as error:
        number = exit_status(error) - 128
    if first and number is not None:
        print(_interrupted(run), file=sys.stderr)
    elif first:
        print(f"look at it with `aime report {run}`")
    return 0 if number is None else 128 + number


def _interrupted(run: Path | None) -> str:
    """What is said of a run that a signal has ended."""
    from aime.world_model.saved import CONFIG, has_checkpoint

    if run is None or not (run / CONFIG).is_file():
        return "interrupted before the run began; nothing was written"
    again = f"`aime train --resume --out {run}`"
    if has_checkpoint(run):
        return f"interrupted; the run is saved: go on with {again}"
    return f"interrupted before the first checkpoint: start the run again with {again}"


def configure(arguments: Sequence[str]) -> TrainConfig:
    """The run that the arguments ask for: the preset sized to the data, or the saved run, then the flags over it.

    Raises:
        AimeError: if an argument does not fit, or what it names cannot be read.
    """
    from aime.training.config import TrainConfig

    named = bool(arguments) and not arguments[0].startswith("-")
    preset, flags = (arguments[0], list(arguments[1:])) if named else (value_of(arguments, "--preset"), list(arguments))
    flags = gather(flags, "--data", join_sources)
    if wants_help(flags):
        show_help(TRAIN, TrainConfig, "train", flags, _example(preset or "tiny"))
    refuse_unknown_flags(TrainConfig, "train", flags)
    if preset is not None:
        require_preset(preset)
        flags = ["--preset", preset, *flags] if named else flags
    default = _saved(flags) if has_flag(flags, "--resume") else _fresh(preset, flags)
    return parse(TrainConfig, "train", flags, default)


def _fresh(preset: str | None, flags: Sequence[str]) -> TrainConfig:
    if preset is None:
        raise AimeError("no preset is given; expected one after `aime train`, such as: aime train tiny")
    data = required(flags, "--data", DATA)
    return sized_to_data(preset, data, Path(required(flags, "--out", "the run directory to write")), flags)


def sized_to_data(preset: str, data: str, out: Path, flags: Sequence[str]) -> TrainConfig:
    """A preset's run with the frames and actions of the data, and the kind of budget that the flags give.

    With `--init-from RUN` the model is that of the run, as far as the data allows.

    Raises:
        AimeError: if there is no such preset, the data cannot be read, the run to start from is of another preset, or
            the flags give no budget.
    """
    from aime.data import open_dataset
    from aime.training.presets import preset_run

    if not (has_flag(flags, "--steps") or has_flag(flags, "--minutes")):
        raise AimeError("neither --steps nor --minutes is given; expected one of them: say how long to train")
    dataset = open_dataset(data)
    require_preset(preset)
    config = preset_run(preset, data, out, dataset.action_width, dataset.image_size)
    start = value_of(flags, "--init-from")
    if start not in (None, "None"):
        config = dataclasses.replace(config, model=_model_to_go_on_with(config, start))
    if has_flag(flags, "--observe-state"):
        if not dataset.has_state:
            raise AimeError(f"{data}: has no 'state'; expected one for --observe-state: leave it out, or add states")
        state = dataclasses.replace(config.model.state, width=dataset.state_width)
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, state=state))
    return _with_budget(config, flags)


def _model_to_go_on_with(config: TrainConfig, start: str) -> ModelConfig:
    """The model of the run to start from, with heads where that has none: presets change from version to version."""
    from aime.world_model.saved import read_run

    run, fresh = read_run(start), config.model
    if run.preset != config.preset:
        raise AimeError(f"{start}: --init-from: its preset is {run.preset}; expected {config.preset}: give its own")
    control = fresh.control if run.model.control.kind == "none" else run.model.control
    state = dataclasses.replace(run.model.state, width=0)
    return dataclasses.replace(
        run.model, action_width=fresh.action_width, image_size=fresh.image_size, control=control, state=state
    )


def _saved(flags: Sequence[str]) -> TrainConfig:
    """The config that the run in `--out` was started with, so that its flags need not be given again.

    Raises:
        AimeError: if the run's data is not where it was, or other data is, and no `--data` is given.
    """
    from aime.inference.own_data import own_data
    from aime.training.run_directory import read_config
    from aime.world_model.saved import has_checkpoint, read_run

    out = Path(required(flags, "--out", "the run directory to go on with"))
    data = value_of(flags, "--data") or own_data(read_run(out))
    saved = dataclasses.replace(read_config(out), data=data, out=out, resume=True)
    if has_checkpoint(out):  # whose weights have come from there already
        saved = dataclasses.replace(saved, init_from=None)
    return _with_budget(saved, flags)


def _with_budget(config: TrainConfig, flags: Sequence[str]) -> TrainConfig:
    # a flag for one kind of budget replaces a default of the other kind
    if has_flag(flags, "--steps"):
        return dataclasses.replace(config, steps=1, minutes=None)
    if has_flag(flags, "--minutes"):
        return dataclasses.replace(config, steps=None, minutes=1.0)
    return config


def _example(preset: str) -> TrainConfig:
    from aime.training.presets import preset_run

    require_preset(preset)
    return preset_run(preset, "DIR", Path("RUN"), 1, 64)


def require_preset(preset: str) -> None:
    """Raises: AimeError: if there is no preset of that name."""
    from aime.world_model.presets import PRESETS

    if preset not in PRESETS:
        near = difflib.get_close_matches(preset, PRESETS, n=1)
        hint = f": did you mean {near[0]}?" if near else ""
        raise AimeError(f"there is no preset '{preset}'; expected {', '.join(PRESETS)}{hint}")


def required(flags: Sequence[str], flag: str, expected: str) -> str:
    """A flag's value, which the parser sees too late: the defaults of the others depend on it.

    Raises:
        AimeError: if the flag or its value is missing.
    """
    value = value_of(flags, flag)
    if value is None:
        raise AimeError(f"{flag} is missing; expected {expected}")
    return value
