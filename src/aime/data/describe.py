"""Summary statistics and a contact sheet of a data set."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from aime.data.dataset import Contribution, Dataset
from aime.data.episodes import Episode
from aime.data.shards import Attribute
from aime.errors import AimeError
from aime.primitives.files import write_atomically

SHEET_EPISODES, SHEET_FRAMES = 8, 10
"""Rows and columns of a contact sheet."""

_GAP, _MARGIN, _CELL = 2, 24, 96

_BYTES_AT_ONCE = 2**26
"""Largest size of decoded frames in memory."""


@dataclass(frozen=True)
class Spread:
    """Minimum, mean and maximum of numbers, without NaN; all NaN if there are none."""

    least: float
    mean: float
    greatest: float

    @classmethod
    def of(cls, values: Float[np.ndarray, " N"]) -> Spread:
        """The spread of numbers `[N]`."""
        known = values[~np.isnan(values)].astype(np.float64)
        if known.size == 0:
            return cls(float("nan"), float("nan"), float("nan"))
        return cls(float(known.min()), float(known.mean()), float(known.max()))


@dataclass(frozen=True)
class DatasetSummary:
    """Summary of a data set.

    Attributes:
        name: of the data set.
        episodes: number of episodes.
        frames: total number of frames.
        shortest: frames of the shortest episode.
        median: median number of frames per episode.
        longest: frames of the longest episode.
        image_size: height and width of a frame in pixels.
        brightness: of all channels of all pixels, 0 to 255.
        actions: one spread per actuator, in [-1, 1].
        reward: in the environment's units.
        terminated: number of episodes that terminated.
        state_width: numbers in the state, 0 if none was recorded.
        masked: number of episodes with masks.
        mask_names: names of the ids in the masks.
        mask_shares: share of the pixels of each id, including 0 (the background).
        attributes: on which all shards agree.
        bytes_on_disk: size of the shards, also for a view of them.
        sources: the part of each source.
    """

    name: str
    episodes: int
    frames: int
    shortest: int
    median: float
    longest: int
    image_size: int
    brightness: Spread
    actions: tuple[Spread, ...]
    reward: Spread
    terminated: int
    state_width: int
    masked: int
    mask_names: dict[int, str]
    mask_shares: dict[int, float]
    attributes: dict[str, Attribute]
    bytes_on_disk: int
    sources: tuple[Contribution, ...]


def describe(dataset: Dataset, progress: Callable[[int], None] = lambda frames: None) -> DatasetSummary:
    """Read every frame and mask of a data set, which verifies them, and summarise.

    Args:
        dataset: from `open_dataset`.
        progress: called with the number of frames of each part that was read.

    Raises:
        AimeError: if a frame or mask cannot be read; names file and episode.
    """
    actions, rewards, brightness, frames, ended = [], [], [], [], set()
    ids = np.zeros(256, np.int64)
    for number, part in _parts(dataset):
        actions.append(part.action)
        rewards.append(part.reward)
        pixels = part.pixels
        brightness.append((pixels.min(), pixels.mean(), pixels.max()))
        frames.append(len(part))
        if part.terminated.any():
            ended.add(number)
        if part.mask is not None:
            ids += np.bincount(part.mask.ravel(), minlength=256)
        progress(len(part))
    least, mean, greatest = np.array(brightness, dtype=np.float64).T
    return DatasetSummary(
        name=dataset.name,
        episodes=dataset.episodes,
        frames=dataset.frames,
        shortest=int(dataset.lengths.min()),
        median=float(np.median(dataset.lengths)),
        longest=int(dataset.lengths.max()),
        image_size=dataset.image_size,
        brightness=Spread(least.min(), float(np.average(mean, weights=frames)), greatest.max()),
        actions=tuple(Spread.of(column) for column in np.concatenate(actions).T),
        reward=Spread.of(np.concatenate(rewards)),
        terminated=len(ended),
        state_width=dataset.state_width,
        masked=int(dataset.has_mask.sum()),
        mask_names=dataset.mask_names,
        mask_shares={number: float(ids[number] / ids.sum()) for number in np.flatnonzero(ids).tolist()},
        attributes=dataset.attributes,
        bytes_on_disk=sum(file.stat().st_size for file in dataset.files),
        sources=dataset.contributions,
    )


def _parts(dataset: Dataset) -> Iterator[tuple[int, Episode]]:
    """All episodes with their numbers, in parts of bounded size."""
    most = max(1, _BYTES_AT_ONCE // (3 * dataset.image_size**2))
    for number, length in enumerate(dataset.lengths.tolist()):
        for start in range(0, length, most):
            yield number, dataset.read(number, start, min(start + most, length))


def contact_sheet(dataset: Dataset, path: str | Path) -> None:
    """Write a PNG with up to 8 evenly spaced episodes as rows and up to 10 evenly spaced frames of each.

    Raises:
        AimeError: if the path does not end in .png, cannot be written, or a frame cannot be read.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise AimeError(f"{path}: has suffix '{path.suffix}', expected .png; name the picture NAME.png")
    content = io.BytesIO()
    _draw(dataset).save(content, "PNG")
    write_atomically(path, content.getbuffer())


def _draw(dataset: Dataset) -> Image.Image:
    chosen = _spread(dataset.episodes, SHEET_EPISODES)
    pitch = _CELL + _GAP
    sheet = Image.new("RGB", (_MARGIN + SHEET_FRAMES * pitch, _MARGIN + len(chosen) * pitch), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, 6), f"{dataset.name}: episodes downwards, time to the right", fill="black")
    for row, number in enumerate(chosen):
        top = _MARGIN + row * pitch
        pen.text((2, top + _CELL // 2), str(number), fill="black")
        for column, step in enumerate(_spread(int(dataset.lengths[number]), SHEET_FRAMES)):
            frame = Image.fromarray(dataset.frame(number, step))
            sheet.paste(frame.resize((_CELL, _CELL), Image.Resampling.BICUBIC), (_MARGIN + column * pitch, top))
    return sheet


def _spread(total: int, most: int) -> list[int]:
    """At most `most` evenly spaced numbers from 0 to `total - 1`, both included."""
    numbers: list[int] = np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(int)).tolist()
    return numbers
