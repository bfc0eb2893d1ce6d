"""`aime data`: check and describe a data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from aime.cli.arguments import parse
from aime.data.dataset import Dataset
from aime.data.describe import DatasetSummary, Spread, contact_sheet, describe
from aime.data.mask_names import ATTRIBUTE as MASK_NAMES
from aime.data.opening import open_dataset
from aime.data.sources import Source, is_bundled, join_sources, parse_sources
from aime.errors import AimeError

ACTIONS_SHOWN = 8
INSTANCES_SHOWN = 12


@dataclass(frozen=True)
class DataOptions:
    """Check every value of a data set, describe it, and write a contact sheet."""

    source: tyro.conf.Positional[tuple[str, ...]]
    """Directory of shards, one shard, or bundled:cartpole.
    Several are described together, as in `aime train --data A B=0.3`."""
    picture: Path | None = None
    """Contact sheet, NAME.png. By default contact_sheet.png in the directory of the shards, if it does not exist.
    For bundled data and several data sets, it is in the current directory."""


def main(arguments: list[str]) -> int:
    """Run `aime data` and return the exit status."""
    options = parse(DataOptions, "data", arguments)
    if not options.source:
        raise AimeError("no data set is given; expected a directory of shards, one shard, or bundled:cartpole")
    dataset = open_dataset(join_sources(options.source))
    console = Console(stderr=True)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("reading", total=dataset.frames)
        summary = describe(dataset, lambda frames: bar.advance(task, frames))
    Console().print(_table(summary))
    print(_picture(dataset, options))
    return 0


def _picture(dataset: Dataset, options: DataOptions) -> str:
    """Write the contact sheet, and return a line about it."""
    if options.picture is not None:
        contact_sheet(dataset, options.picture)
        return f"contact sheet: {options.picture}"
    place = _default_picture(parse_sources(dataset.name))
    if place.exists():
        return f"contact sheet: {place} exists and was not changed; --picture FILE.png writes another"
    try:
        contact_sheet(dataset, place)
    except AimeError as error:  # the directory of the data may be read-only
        return f"no contact sheet: {error}"
    return f"contact sheet: {place}"


def _default_picture(sources: Sequence[Source]) -> Path:
    if len(sources) > 1:
        return Path("contact_sheet.png")
    source = sources[0].name
    if is_bundled(source):
        return Path(f"{source.replace(':', '-')}-contact_sheet.png")
    path = Path(source)
    return path / "contact_sheet.png" if path.is_dir() else path.with_name(f"{path.stem}-contact_sheet.png")


def _table(summary: DatasetSummary) -> Table:
    table = Table(title=summary.name, show_header=False, title_justify="left")
    for name, value in _rows(summary):
        table.add_row(name, value)
    return table


def _rows(summary: DatasetSummary) -> list[tuple[str, str]]:
    size, median = summary.image_size, f"{summary.median:g}"
    shown = list(enumerate(summary.actions[:ACTIONS_SHOWN]))
    megabytes, per_frame = summary.bytes_on_disk / 1e6, summary.bytes_on_disk / summary.frames
    more = len(summary.actions) - len(shown)
    sources = summary.sources if len(summary.sources) > 1 else ()
    return [
        *(
            (each.name, f"{each.episodes} episodes, {each.frames} frames, {each.share:.1%} of clips")
            for each in sources
        ),
        ("episodes", f"{summary.episodes}, of {summary.shortest} to {summary.longest} frames, median {median}"),
        ("frames", f"{summary.frames} of {size}x{size}, brightness {_range(summary.brightness)} of 0 to 255"),
        ("actions", f"{len(summary.actions)} wide"),
        *((f"  action {index}", _range(spread)) for index, spread in shown),
        *([("  more", f"{more} not shown")] if more > 0 else []),
        ("reward", _range(summary.reward)),
        ("terminated", f"{summary.terminated} of {summary.episodes} episodes"),
        ("state", f"{summary.state_width} wide" if summary.state_width else "not recorded"),
        ("masks", _masks(summary)),
        (
            "on disk",
            f"{megabytes:.1f} MB, {per_frame:.0f} bytes a frame",
        ),
        *((name, str(value)) for name, value in summary.attributes.items() if name != MASK_NAMES),
    ]


def _masks(summary: DatasetSummary) -> str:
    if not summary.masked:
        return "not recorded"
    shares = [(number, share) for number, share in summary.mask_shares.items() if number]
    shown = [f"{summary.mask_names.get(number, number)} {share:.1%}" for number, share in shares[:INSTANCES_SHOWN]]
    more = [f"{len(shares) - len(shown)} more"] if len(shares) > len(shown) else []
    episodes = "all" if summary.masked == summary.episodes else f"{summary.masked} of {summary.episodes}"
    return f"{episodes} episodes; of the pixels: {', '.join(shown + more) or 'background only'}"


def _range(spread: Spread) -> str:
    if math.isnan(spread.mean):
        return "not recorded"
    return f"{spread.least:.3g} to {spread.greatest:.3g}, mean {spread.mean:.3g}"
