"""Exporter to a folder: per episode a video or a directory of pictures, and a CSV table; see `aime import folder`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from aime.data.dataset import Dataset
from aime.io.exporters.films import write_film
from aime.io.exporters.interface import Original, Settings, named_numbers, originals, whole
from aime.io.importers.picture_masks import MASKS


def export(dataset: Dataset, out: Path, settings: Settings) -> None:
    """Write the directory `out`, which must not exist.

    Raises:
        AimeError: if it exists, a frame cannot be read, or PyAV is needed and not installed.
    """
    with whole(out) as place:
        place.mkdir()
        for number, episode in enumerate(originals(dataset)):
            name = f"episode-{number:06d}"
            if settings.pictures:
                _write_pictures(place / name, episode.pixels)
                if episode.mask is not None:
                    _write_masks(place / name / MASKS, episode.mask)
            else:
                write_film(place / f"{name}.mp4", episode.pixels, settings.fps)
            columns = table(dataset, episode)
            if columns:
                _write_csv(place / f"{name}.csv", columns)
            settings.progress(len(episode.pixels))


def table(dataset: Dataset, episode: Original) -> dict[str, np.ndarray]:
    """The columns of an episode by name, `[L]` each; none if only frames were recorded."""
    columns: dict[str, np.ndarray] = {}
    parts: tuple[tuple[Literal["action", "state"], np.ndarray | None], ...]
    parts = (("action", episode.action), ("state", episode.state))
    for kind, rows in parts:
        if rows is not None:
            names = named_numbers(dataset, kind, rows.shape[1]) or [f"{index:02d}" for index in range(rows.shape[1])]
            columns |= {_column(kind, name): part for name, part in zip(names, rows.T, strict=True)}
    if episode.reward is not None:
        columns["reward"] = episode.reward
    return columns | {"terminated": episode.terminated} if columns else {}


def _column(kind: str, name: str) -> str:
    """A column name that the importer recognises as an action or a state."""
    return name if name == kind or name.startswith(f"{kind}[") else f"{kind}_{name}"


def _write_pictures(place: Path, frames: UInt8[np.ndarray, "L H W 3"]) -> None:
    place.mkdir()
    for step, frame in enumerate(frames):
        Image.fromarray(frame).save(place / f"{step:06d}.png")


def _write_masks(place: Path, masks: UInt8[np.ndarray, "L H W"]) -> None:
    """Write masks as palette pictures, so that viewers show instances in different colours."""
    place.mkdir()
    palette = np.random.default_rng(0).integers(64, 256, (256, 3))
    palette[0] = 0
    for step, mask in enumerate(masks):
        picture = Image.fromarray(mask, "L")
        picture.putpalette(palette.astype(np.uint8).tobytes())
        picture.save(place / f"{step:06d}.png")


def _write_csv(path: Path, columns: dict[str, np.ndarray]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow([_cell(value) for value in row])


def _cell(value: Any) -> str:
    """A number as text, without loss; empty for NaN."""
    if isinstance(value, np.bool_):
        return str(int(value))
    return "" if np.isnan(value) else np.format_float_positional(value, unique=True, trim="-")
