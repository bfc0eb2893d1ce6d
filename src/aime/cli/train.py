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
    """Run `aime train` and return the exit status: after a signal, 128 plus its number.

    Raises:
        AimeError: if an argument, the data or the run directory is invalid.
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
        print(f"the run is complete: {run}; show it with `aime report {run}`")
    return 0 if number is None else 128 + number


def _interrupted(run: Path | None) -> str:
    """A line about a run that a signal interrupted."""
    from aime.world_model.saved import CONFIG, has_checkpoint

    if run is None or not (run / CONFIG).is_file():
        return "interrupted before the run started; nothing was written"
    again = f"`aime train --resume --out {run}`"
    if has_checkpoint(run):
        return f"interrupted; the run is saved: continue with {again}"
    return f"interrupted before the first checkpoint: restart the run with {again}"


def configure(arguments: Sequence[str]) -> TrainConfig:
    """The config of the run: the preset with the data's sizes, or the saved run, then the flags.

    Raises:
        AimeError: if an argument is invalid, or a file that it names cannot be read.
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
    """The config of a preset with the data's sizes, and the kind of budget in the flags.

    With `--init-from RUN` the model is that of the run, with the data's sizes.

    Raises:
        AimeError: if there is no such preset, the data cannot be read, the run to start from has another preset, or
            the flags have no budget.
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
    """The model of the run to start from, with heads if that has none."""
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
    """The config of the run in `--out`.

    Raises:
        AimeError: if the run's data was moved or changed, and no `--data` is given.
    """
    from aime.inference.own_data import own_data
    from aime.training.run_directory import read_config
    from aime.world_model.saved import has_checkpoint, read_run

    out = Path(required(flags, "--out", "the run directory to continue"))
    data = value_of(flags, "--data") or own_data(read_run(out))
    saved = dataclasses.replace(read_config(out), data=data, out=out, resume=True)
    if has_checkpoint(out):  # its weights already include those of init_from
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
    """The value of a required flag, before parsing, because the defaults of others depend on it.

    Raises:
        AimeError: if the flag or its value is missing.
    """
    value = value_of(flags, flag)
    if value is None:
        raise AimeError(f"{flag} is missing; expected {expected}")
    return value
