"""Interface of exporters: a function `export(dataset, out, settings)` in each module."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from aime.data.action_scale import ActionScale
from aime.data.dataset import Dataset
from aime.data.state_names import number_names, read_action_names, read_state_names
from aime.errors import AimeError
from aime.primitives.files import staging, sync_directory


class Original(NamedTuple):
    """An episode with actions in their original units."""

    pixels: UInt8[np.ndarray, "L H W 3"]
    """Frames, 0 to 255."""
    action: Float32[np.ndarray, "L A"] | None
    """In the original units, NaN where unknown; None if no action was recorded."""
    reward: Float32[np.ndarray, " L"] | None
    """Received on arrival at the frame; None if not recorded."""
    terminated: Bool[np.ndarray, " L"]
    """Whether the arrival ended the episode."""
    state: Float32[np.ndarray, "L S"] | None
    """None if not recorded."""
    mask: UInt8[np.ndarray, "L H W"] | None = None
    """Instance ids, 0 for the background; None if not recorded."""


@dataclass(frozen=True)
class Settings:
    """Settings of an export.

    Attributes:
        fps: frames per second of videos.
        pictures: write PNG files, without loss, instead of videos; for folders only.
        progress: called with the number of frames of each written episode.
    """

    fps: float = 10.0
    pictures: bool = False
    progress: Callable[[int], None] = lambda frames: None


def originals(dataset: Dataset) -> Iterator[Original]:
    """The episodes of a data set, with actions in the original units if the data set has them."""
    scale = ActionScale.of_attributes(dataset.attributes)
    for episode in dataset:
        action = None if np.isnan(episode.action).all() else episode.action
        if action is not None and scale is not None and scale.width == action.shape[1]:
            action = scale.to_source(action)
        reward = None if np.isnan(episode.reward).all() else episode.reward
        yield Original(episode.pixels, action, reward, episode.terminated, episode.state, episode.mask)


def named_numbers(dataset: Dataset, of: Literal["action", "state"], width: int) -> list[str] | None:
    """The original names of the numbers of an action or a state; None if there are none."""
    read = read_action_names if of == "action" else read_state_names
    return number_names(read(dataset.attributes, width), width)


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A temporary path that is renamed to `out` at the end, or deleted after an error.

    Raises:
        AimeError: if `out` exists.
    """
    if out.exists():
        raise AimeError(f"{out}: exists already; expected a new name: choose another --out")
    with staging(out) as directory:
        place = directory / out.name
        yield place
        for path in [place, *place.rglob("*")]:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        os.replace(place, out)
        sync_directory(out.parent)
