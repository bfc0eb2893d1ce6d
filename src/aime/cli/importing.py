"""`aime import`: bring data sets of other projects into shards."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from aime.cli.arguments import parse
from aime.errors import AimeError
from aime.io.importers.fitting import Fit
from aime.io.importers.interface import Choice
from aime.io.importers.registry import open_source
from aime.io.importers.run import Wish, import_episodes
from aime.primitives.signals import exit_status

Kind = Literal["dmc-vb", "folder", "lerobot", "minari", "stable-worldmodel", "v-d4rl"]


@dataclass(frozen=True)
class ImportOptions:
    """Import a data set of another project as shards that `aime train --data DIR` reads.

    The same command goes on after an interruption, and the outcome is the same as without. What was taken, resized,
    clipped and dropped is printed and kept in DIR/import.json.
    """

    kind: tyro.conf.Positional[Kind]
    """dmc-vb: DMC-VB and other RLDS data sets of tensorflow-datasets, one or a tree of them; folder: films or
    directories of pictures, with tables of actions (CSV, NPZ, Parquet) or without; lerobot: version 2.1 or 3; minari:
    in HDF5; stable-worldmodel: HDF5; v-d4rl: NPZ or HDF5."""
    source: tyro.conf.Positional[Path]
    """The file or directory to import."""
    out: Path
    """The directory to fill. Where the source holds several data sets, each gets a directory of its own in it."""
    image_size: int = 64
    """Height and width of the frames, in pixels: a multiple of 16 from 16 to 256."""
    fit: Fit = "stretch"
    """What to do with frames that are not square: stretch keeps all and distorts, crop cuts the longer sides, pad puts
    black bars beside the frame."""
    camera: tuple[str, ...] = ()
    """The camera to take, by its name in the source; several are tiled into one frame, row by row."""
    split: str | None = None
    """One split of the source. By default all, each in a directory of its own where there are several."""
    actions: bool = True
    """--no-actions imports video alone."""
    action_columns: tuple[str, ...] = ()
    """The columns of a table that are actions. By default all whose name begins with "action"."""
    discrete_actions: tuple[str, ...] = ()
    """Those of them whose whole numbers name choices: each becomes one number a choice. By default they are amounts."""
    state_columns: tuple[str, ...] = ()
    """The columns that are the state. By default all whose name begins with "state"."""
    reward_column: str | None = None
    """The column of rewards. By default "reward", where there is one."""
    time_column: str | None = None
    """The column of times, counted from the film's start. Each frame belongs to the nearest row, within half a frame
    period. Without it frames and rows are paired by their number."""
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    """The unit of that column."""
    every: int = 1
    """One of so many rows of a table belongs to a frame: 4 for a table at 100 Hz and a film at 25."""
    fps: float | None = None
    """Frames a second of directories of pictures, which do not say; of films in place of what they say."""
    action_range: tuple[float, float] | None = None
    """What -1 and 1 shall mean, in the source's units. By default what the source declares for each action, else the
    least and greatest number that it has; numbers that lie within [-1, 1] already stay as they are."""
    depth_range: tuple[float, float] | None = None
    """What becomes black and what white in 16-bit grey pictures, in their own numbers. By default 0 and 65535."""
    state: bool = True
    """--no-state leaves state vectors out."""
    skip_bad: bool = False
    """Go on without episodes that are damaged, and list them."""
    workers: int | None = None
    """Processes. By default one for each core."""


def main(arguments: list[str]) -> int:
    """Run `aime import` and return the exit status."""
    options = parse(ImportOptions, "import", arguments)
    _check(options)
    choice = Choice(
        cameras=options.camera,
        split=options.split,
        state=options.state,
        actions=options.actions,
        action_columns=options.action_columns,
        discrete_actions=options.discrete_actions,
        state_columns=options.state_columns,
        reward_column=options.reward_column,
        time_column=options.time_column,
        time_unit=options.time_unit,
        every=options.every,
        fps=options.fps,
        depth_range=options.depth_range,
    )
    sources = open_source(options.kind, options.source, choice)
    console = Console(stderr=True)
    try:
        for place, importer in sources.items():
            out = options.out / place
            report = import_episodes(importer, out, _wish(options, choice), console)
            print("\n  ".join([f"{out}:", *report.lines()]))
    except KeyboardInterrupt as error:
        print("aime import: interrupted; all shards written are whole: run the same command to go on", file=sys.stderr)
        return exit_status(error)
    return 0


def _wish(options: ImportOptions, choice: Choice) -> Wish:
    return Wish(
        kind=options.kind,
        source=str(options.source),
        image_size=options.image_size,
        fit=options.fit,
        action_range=options.action_range,
        skip_bad=options.skip_bad,
        workers=options.workers or len(os.sched_getaffinity(0)),
        choice=choice,
    )


def _check(options: ImportOptions) -> None:
    """What the parser cannot know.

    Raises:
        AimeError: if a number is out of range.
    """
    if options.image_size % 16 or not 16 <= options.image_size <= 256:
        raise AimeError(f"--image-size is {options.image_size}, expected a multiple of 16 from 16 to 256")
    if options.every < 1:
        raise AimeError(f"--every is {options.every}, expected 1 or more")
    if options.fps is not None and not 0 < options.fps <= 10_000:
        raise AimeError(f"--fps is {options.fps}, expected more than 0 and at most 10000")
    if options.workers is not None and not 1 <= options.workers <= 1024:
        raise AimeError(f"--workers is {options.workers}, expected 1 to 1024")
    for flag, limits in (("--action-range", options.action_range), ("--depth-range", options.depth_range)):
        if limits is not None and not -math.inf < limits[0] < limits[1] < math.inf:
            raise AimeError(f"{flag} is {limits}, expected two numbers, LOW below HIGH")
