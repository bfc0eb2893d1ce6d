"""`aime import`: convert data sets of other projects to shards."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from aime.cli.arguments import parse
from aime.errors import AimeError
from aime.io.importers.fitting import Fit
from aime.io.importers.interface import Choice
from aime.io.importers.registry import open_source
from aime.io.importers.run import ImportRequest, import_episodes
from aime.primitives.signals import exit_status


@dataclass(frozen=True)
class ImportOptions:
    """Convert a data set of another project to shards, which `aime train --data DIR` reads.

    After an interruption, the same command continues. DIR/import.json lists what was resized, clipped and dropped.
    """

    kind: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="KIND")]
    """dmc-vb: DMC-VB and other RLDS data sets of tensorflow-datasets. lerobot: version 2.1 or 3.
    folder: videos or directories of pictures, with or without tables of actions (CSV, NPZ, Parquet).
    minari, stable-worldmodel: HDF5. v-d4rl: NPZ or HDF5."""
    source: tyro.conf.Positional[Path]
    """The file or directory to import."""
    out: Path
    """Directory to write. If the source contains several data sets, each gets a subdirectory."""
    image_size: int = 64
    """Height and width of frames in pixels: a multiple of 16 from 16 to 256."""
    fit: Fit = "stretch"
    """Frames that are not square: stretch distorts them, crop cuts the longer sides, pad adds black bars."""
    camera: tuple[str, ...] = ()
    """Name of the camera in the source. Several cameras are tiled into one frame, row by row."""
    split: str | None = None
    """One split of the source. By default all, each in a subdirectory."""
    actions: bool = True
    """--no-actions imports video only."""
    action_columns: tuple[str, ...] = ()
    """Columns of actions. By default all that begin with "action"."""
    discrete_actions: tuple[str, ...] = ()
    """Columns of actions that are discrete. Each becomes one number per choice. By default integers are continuous."""
    state_columns: tuple[str, ...] = ()
    """Columns of the state. By default all that begin with "state"."""
    reward_column: str | None = None
    """Column of rewards. By default "reward", if it exists."""
    time_column: str | None = None
    """Column of times since the start of the video. Each frame is paired with the nearest row.
    By default frames and rows are paired by number."""
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    """Unit of --time-column."""
    every: int = 1
    """Rows per frame: 4 for a table at 100 Hz and a video at 25 frames/s."""
    fps: float | None = None
    """Frames per second of pictures, or of videos instead of the rate in their header."""
    action_range: tuple[float, float] | None = None
    """Values that become -1 and 1. By default the declared range of each action, else its smallest and largest value.
    If all values lie within [-1, 1], they are unchanged."""
    depth_range: tuple[float, float] | None = None
    """Values of 16-bit grey pictures that become black and white. By default 0 and 65535."""
    state: bool = True
    """--no-state leaves out state vectors."""
    skip_bad: bool = False
    """Leave out damaged episodes and list them."""
    workers: int | None = None
    """Number of processes. By default one per core."""


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
            report = import_episodes(importer, out, _request(options, choice), console)
            print("\n  ".join([f"{out}:", *report.lines()]))
    except KeyboardInterrupt as error:
        print(
            "aime import: interrupted; all written shards are complete: run the same command to continue",
            file=sys.stderr,
        )
        return exit_status(error)
    return 0


def _request(options: ImportOptions, choice: Choice) -> ImportRequest:
    return ImportRequest(
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
    """Checks that the parser cannot do.

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
