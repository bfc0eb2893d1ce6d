"""What a data set holds, in numbers and in one picture."""

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
"""Of decoded frames."""


@dataclass(frozen=True)
class Spread:
    """The least, mean and greatest of some numbers, NaN left out; all NaN where there are none."""

    least: float
    mean: float
    greatest: float

    @classmethod
    def of(cls, values: Float[np.ndarray, " N"]) -> Spread:
        """The spread of some numbers, `[N]`."""
        known = values[~np.isnan(values)].astype(np.float64)
        if known.size == 0:
            return cls(float("nan"), float("nan"), float("nan"))
        return cls(float(known.min()), float(known.mean()), float(known.max()))


@dataclass(frozen=True)
class DatasetSummary:
    """The facts of a data set.

    Attributes:
        name: what the user calls it.
        episodes: how many.
        frames: of all episodes together.
        shortest: frames of the shortest episode.
        median: frames of the median episode.
        longest: frames of the longest episode.
        image_size: height and width of a frame in pixels.
        brightness: of all channels of all pixels, 0 to 255.
        actions: one spread an actuator, in [-1, 1].
        reward: in the environment's units.
        terminated: how many episodes ended for good.
        state_width: numbers in the simulator's state, 0 where none was recorded.
        masked: how many episodes have masks.
        mask_names: what each id in the masks shows, as far as the shards say so and agree.
        mask_shares: the share of pixels of each id that occurs in the masks, 0 (the background) included.
        attributes: what the writers noted and all shards agree on.
        bytes_on_disk: of the shards, in bytes; of a view it is that of the whole.
        sources: what each of several brings.
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
    """Read every frame and mask of a data set, which checks that all can be read, and sum up.

    Args:
        dataset: as `open_dataset` gives it, which has checked the rest already.
        progress: called with the number of frames of each stretch that has been read.

    Raises:
        AimeError: if a frame or a mask cannot be read, naming the file and the episode.
    """
    actions, rewards, brightness, frames, ended = [], [], [], [], set()
    ids = np.zeros(256, np.int64)
    for number, stretch in _stretches(dataset):
        actions.append(stretch.action)
        rewards.append(stretch.reward)
        pixels = stretch.pixels
        brightness.append((pixels.min(), pixels.mean(), pixels.max()))
        frames.append(len(stretch))
        if stretch.terminated.any():
            ended.add(number)
        if stretch.mask is not None:
            ids += np.bincount(stretch.mask.ravel(), minlength=256)
        progress(len(stretch))
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


def _stretches(dataset: Dataset) -> Iterator[tuple[int, Episode]]:
    """All episodes, each with its number and in parts that bound the memory: a file says how long an episode is."""
    most = max(1, _BYTES_AT_ONCE // (3 * dataset.image_size**2))
    for number, length in enumerate(dataset.lengths.tolist()):
        for start in range(0, length, most):
            yield number, dataset.read(number, start, min(start + most, length))


def contact_sheet(dataset: Dataset, path: str | Path) -> None:
    """Write a PNG with a row for each of up to 8 episodes and up to 10 frames of each, at equal distances.

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
    """At most `most` of the numbers 0 to `total - 1`, first and last among them, at equal distances."""
    numbers: list[int] = np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(int)).tolist()
    return numbers
