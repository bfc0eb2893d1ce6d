"""A run's model on a device, and clips to run it on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64

from aime.data import Dataset
from aime.data.clips import clip_starts, read_clips
from aime.data.drawing import ClipStarts
from aime.data.state_names import order_mismatch
from aime.errors import AimeError
from aime.primitives.hardware import Device, choose_device
from aime.world_model.model import AIME
from aime.world_model.saved import RunInfo, read_run

SEARCHED = 4
"""Episodes that are searched for a moving clip."""


def load_run(run: str | Path, device: Device = "auto") -> tuple[RunInfo, AIME]:
    """A run's config and manifest, and its model with averaged weights in eval mode.

    Raises:
        AimeError: if `run` is no run or has no weights yet, or CUDA is asked for and there is none.
    """
    info = read_run(run)
    return info, AIME.from_pretrained(run, choose_device(device))


def check_lengths(context: int, horizon: int) -> None:
    """Refuse a context or a horizon without frames.

    Raises:
        AimeError: if one of them is below 1.
    """
    for name, value, usual in (("context", context, 5), ("horizon", horizon, 45)):
        if value < 1:
            raise AimeError(f"{name} is {value}; expected 1 or more frames: take --{name} {usual}, say")


def check_fit(dataset: Dataset, info: RunInfo) -> None:
    """Refuse episodes whose frames, actions or states are not those of a run's model.

    Raises:
        AimeError: if the image size, the action width or the width of a state that is there differs, naming both, or if
            the run's data has the same actions or states in another order.
    """
    model, run = info.model, info.path
    for name, found, expected in (
        ("pixels: image size", dataset.image_size, model.image_size),
        ("action: width", dataset.action_width, model.action_width),
        ("state: width", dataset.state_width, model.state.width),
    ):
        # states are optional for a model that observes them, and ignored by one that does not
        if found != expected and (found and expected):
            raise AimeError(
                f"{dataset.name}: {name} is {found}, expected {expected} as in the model of {run}; take episodes "
                "recorded as the run's training data was, or train a model on these"
            )
    order = order_mismatch(dataset.attributes, info.names, (dataset.action_width, dataset.state_width))
    if order:
        raise AimeError(
            f"{dataset.name}: has the {order} as in the data of {run}; take data in that order by --data, or import it "
            "again"
        )


def moving_clip_starts(dataset: Dataset, length: int, count: int) -> ClipStarts:
    """Clips for pictures: of each of `count` stretches of the list of episodes, the one in which most moves.

    Up to `SEARCHED` episodes of each stretch are searched. The choice does not depend on the model.

    Args:
        dataset: its episodes have `length` steps or more.
        length: steps per clip, 1 or more.
        count: clips, 1 or more; fewer if there are fewer episodes.

    Raises:
        AimeError: if a file is damaged.
    """
    stretches = np.array_split(np.arange(dataset.episodes), min(count, dataset.episodes))
    found = [_most_moving(dataset, each[:SEARCHED], length) for each in stretches]
    return ClipStarts(*(np.concatenate(field) for field in zip(*found, strict=True)))


def _most_moving(dataset: Dataset, episodes: Int64[np.ndarray, " N"], length: int) -> ClipStarts:
    searched = dataset.select(episodes)
    places = clip_starts(searched, length)
    frames = read_clips(searched, places, length).frames
    movement = [(clip[1:].float() - clip[:-1].float()).abs().mean() for clip in frames]
    best = places.take(np.array([int(torch.stack(movement).nan_to_num().argmax())]))
    return best._replace(episodes=episodes[best.episodes])
