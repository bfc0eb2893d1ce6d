"""What every look at a run starts with: its model, and clips of episodes that it never trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64

from aime.data import Clips, Dataset, Split, open_dataset
from aime.data.clips import Places, clip_places, read_clips
from aime.data.sources import BUNDLED, parse_sources, places_of
from aime.errors import AimeError
from aime.world_model.config import ModelConfig
from aime.world_model.model import AIME
from aime.world_model.saved import RunInfo, read_run

SEARCHED = 4
"""Episodes that are searched for a lively clip."""

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Unseen:
    """Episodes that a run never trained on, and which part of their data set they are."""

    dataset: Dataset
    split: Split


def choose_device(device: Device) -> torch.device:
    """The device asked for; `auto` is a CUDA GPU where there is one.

    Raises:
        AimeError: if CUDA is asked for and there is none.
    """
    found = torch.cuda.is_available()
    if device == "cuda" and not found:
        raise AimeError("device is cuda; expected a CUDA GPU and found none: take --device cpu, or see `aime doctor`")
    return torch.device("cuda" if found and device != "cpu" else "cpu")


def load_run(run: str | Path, device: Device = "auto") -> tuple[RunInfo, AIME]:
    """What a run says about itself, and its model with averaged weights in eval mode.

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


def open_unseen(info: RunInfo, data: str | Path | None, context: int, horizon: int) -> Unseen:
    """The episodes of `data` that the run never trained on and that are long enough.

    They are the held-out part of the run's own data, of each of its sources and of a bundled data set, and all of any
    other.

    Args:
        info: the run.
        data: what `open_dataset` takes; by default, the run's own data.
        context: frames that the model sees, 1 or more.
        horizon: frames that it predicts, 1 or more.

    Raises:
        AimeError: if there is no such data, if its frames or actions do not fit the model, if no episode has
            context + horizon frames, or if it is a part of what the run trained on.
    """
    check_lengths(context, horizon)
    source = info.data if data is None else data
    own = is_own(source, info)
    split: Split = "held-out" if own or is_bundled(source) else "all"
    if not own:
        _refuse_part_of_training(source, info)
    dataset = open_dataset(source, split, float(info.train.get("held_out", 0.05)))
    check_fit(dataset, info.model, info.path)
    dataset = dataset.in_scale(info.action_scale)
    return Unseen(_long_enough(dataset, context, horizon), split)


def check_fit(dataset: Dataset, model: ModelConfig, run: Path) -> None:
    """Refuse episodes whose frames, actions or states are not those of the model.

    Raises:
        AimeError: if the image size, the action width or the width of a state that is there differs, naming both.
    """
    for name, found, expected in (
        ("pixels: image size", dataset.image_size, model.image_size),
        ("action: width", dataset.action_width, model.action_width),
        ("state: width", dataset.state_width, model.state.width),
    ):
        # a model that observes states does without, and one that observes none takes no notice
        if found != expected and (found and expected):
            raise AimeError(
                f"{dataset.name}: {name} is {found}, expected {expected} as in the model of {run}; take episodes "
                "recorded as the run's training data was, or train a model on these"
            )


def lively_clips(dataset: Dataset, length: int, count: int) -> Clips:
    """The clips at `lively_places`.

    Raises:
        AimeError: if a file is damaged.
    """
    return read_clips(dataset, lively_places(dataset, length, count), length)


def lively_places(dataset: Dataset, length: int, count: int) -> Places:
    """Clips for pictures: of each of `count` stretches of the list of episodes, the one in which most moves.

    Up to `SEARCHED` episodes of each stretch are searched. What the model makes of a clip plays no part.

    Args:
        dataset: its episodes have `length` steps or more.
        length: steps per clip, 1 or more.
        count: clips, 1 or more; fewer if there are fewer episodes.

    Raises:
        AimeError: if a file is damaged.
    """
    stretches = np.array_split(np.arange(dataset.episodes), min(count, dataset.episodes))
    found = [_liveliest(dataset, each[:SEARCHED], length) for each in stretches]
    return Places(*(np.concatenate(field) for field in zip(*found, strict=True)))


def _liveliest(dataset: Dataset, episodes: Int64[np.ndarray, " N"], length: int) -> Places:
    searched = dataset.select(episodes)
    places = clip_places(searched, length)
    frames = read_clips(searched, places, length).frames
    movement = [(clip[1:].float() - clip[:-1].float()).abs().mean() for clip in frames]
    best = places.take(np.array([int(torch.stack(movement).nan_to_num().argmax())]))
    return best._replace(episodes=episodes[best.episodes])


def same_source(source: str | Path, other: str | Path) -> bool:
    """Whether two texts, as `open_dataset` takes them, name the same data, in whatever order and shares."""
    return places_of(str(source)) == places_of(str(other))


def is_own(source: str | Path, info: RunInfo) -> bool:
    """Whether a run trained on all that `source`, as `open_dataset` takes it, names.

    Raises:
        AimeError: if it trained on some of the named sources only.
    """
    named, own = places_of(str(source)), places_of(info.data)
    if named & own and not named <= own:
        raise AimeError(
            f"{source}: {info.path} trained on some of these sources only; expected all or none of them: take one at a "
            "time"
        )
    return named <= own


def is_bundled(source: str | Path) -> bool:
    """Whether all that `source` names comes with the package, in two parts."""
    return all(place.startswith(BUNDLED) for place in places_of(str(source)))


def _refuse_part_of_training(source: str | Path, info: RunInfo) -> None:
    for part in parse_sources(str(source)):
        for whole in parse_sources(info.data):
            if not whole.place.startswith(BUNDLED) and Path(whole.place) in Path(part.place).parents:
                raise AimeError(
                    f"{part.name}: is a part of {whole.name}, which {info.path} trained on; expected unseen episodes: "
                    f"take --data {whole.name}, of which the held-out part is used"
                )


def _long_enough(dataset: Dataset, context: int, horizon: int) -> Dataset:
    fitting = np.flatnonzero(dataset.lengths >= context + horizon)
    if fitting.size:
        return dataset.select(fitting)
    longest = int(dataset.lengths.max())
    remedy = f"take --horizon {longest - context} or less" if longest > context else "record longer episodes"
    raise AimeError(
        f"{dataset.name}: the longest unseen episode has {longest} frames, expected {context + horizon} (context "
        f"{context} + horizon {horizon}); {remedy}"
    )
