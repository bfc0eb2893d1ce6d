"""`aime export`: write a data set in the format of another project."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from aime.cli.arguments import parse
from aime.data.dataset import Dataset
from aime.data.opening import open_dataset
from aime.data.pool import progress_bar
from aime.errors import AimeError
from aime.io.exporters.interface import Settings

Kind = Literal["stable-worldmodel", "lerobot", "folder"]


@dataclass(frozen=True)
class ExportOptions:
    """Write a data set in the format of another project, with actions in their original units."""

    kind: tyro.conf.Positional[Kind]
    """stable-worldmodel: one HDF5 file. lerobot: version 2.1. folder: videos or pictures, with CSV files."""
    data: tyro.conf.Positional[str]
    """Directory of shards, one shard, or bundled:cartpole."""
    out: Path
    """File or directory to write. It must not exist."""
    fps: float | None = None
    """Frames per second of videos. By default the rate of the data set, or 10 if it has none."""
    pictures: bool = False
    """folder: write PNG files, without loss, instead of videos."""


def main(arguments: list[str]) -> int:
    """Run `aime export` and return the exit status."""
    options = parse(ExportOptions, "export", arguments)
    if options.fps is not None and not 0.1 <= options.fps <= 1000:
        raise AimeError(f"--fps is {options.fps}, expected 0.1 to 1000")
    if options.pictures and options.kind != "folder":
        raise AimeError(f"--pictures with {options.kind}; expected the kind folder: leave the flag out")
    dataset = open_dataset(options.data)
    rate = _rate(dataset) if options.fps is None else options.fps
    module = importlib.import_module(f"aime.io.exporters.{options.kind.replace('-', '_')}")
    with progress_bar(Console(stderr=True), "frames") as bar:
        task = bar.add_task("exporting", total=dataset.frames)
        settings = Settings(rate, options.pictures, lambda frames: bar.advance(task, frames))
        module.export(dataset, options.out, settings)
    print(f"{options.out}: {dataset.episodes} episodes, {dataset.frames} frames")
    if dataset.has_mask.any() and _writes_films(options):
        print("masks are left out, because videos would change them; stable-worldmodel and folder --pictures keep them")
    if options.kind == "lerobot":
        print(module.NOTE)
    if options.fps is None and "fps" not in dataset.attributes and _writes_films(options):
        print(f"the data has no frame rate: the videos have {rate:.4g} frames per second; --fps sets another rate")
    return 0


def _writes_films(options: ExportOptions) -> bool:
    return options.kind == "lerobot" or (options.kind == "folder" and not options.pictures)


def _rate(dataset: Dataset) -> float:
    """Frames per second of the data, or the default."""
    noted = dataset.attributes.get("fps")
    return float(noted) if isinstance(noted, int | float) and 0.1 <= noted <= 1000 else Settings().fps
