"""What an agent learns from: recorded frames as states of the world model's latent dynamics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils._pytree import tree_map

from aime.data import Clips, Dataset, load_clips
from aime.data.clips import Targets
from aime.dynamics.states import Carry
from aime.primitives.hardware import Hardware
from aime.world_model.model import AIME

CLIP_FRAMES = 256
"""Frames that are observed in one pass; a longer episode is cut, and each part begins with the initial belief."""
BATCH_FRAMES = 1024
"""Frames in one batch, which bounds the memory."""
OnProgress = Callable[[str, int, int, Mapping[str, float]], None]
"""Called with the name of a stage, the steps done, the steps in all and the latest figures."""


def no_progress(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
    """An `OnProgress` that does nothing."""


class Experience(NamedTuple):
    """N recorded frames, in the order of their episodes, on the device of the model."""

    states: Carry
    """At each frame, `[N,·]`."""
    actions: Float[Tensor, "N A"]
    """Taken there, in [-1, 1]."""
    targets: Targets
    """Each field `[N]`; all of them are valid."""
    episode: Int[Tensor, " N"]
    """The number of the episode, from 0."""

    @property
    def frames(self) -> int:
        """N."""
        return self.episode.shape[0]

    def rows(self, chosen: Int[Tensor, " M"] | Bool[Tensor, " N"]) -> Experience:
        """Some of the frames."""
        return tree_map(lambda each: each[chosen], self)


@torch.no_grad()
def perceive(
    model: AIME, dataset: Dataset, frames: int, hardware: Hardware, on_progress: OnProgress = no_progress
) -> Experience:
    """Observe whole episodes from their first frame on, as an agent does.

    Args:
        model: in eval mode, on the device of `hardware`.
        dataset: its frames and actions fit the model.
        frames: about the most frames to take, from episodes at equal distances in the data set; 1 or more.
        hardware: the device and the precision.
        on_progress: called with frames.

    Raises:
        AimeError: if a file is damaged.
    """
    chosen = dataset.spread_episodes(frames)
    parts, done = [], 0
    for episode, clips in _batches(chosen):
        parts.append(_perceive_batch(model, clips.to(hardware.device), episode, hardware))
        done += parts[-1].frames
        on_progress("perceiving", done, int(chosen.lengths.sum()), {})
    return tree_map(lambda *each: torch.cat(each), *parts)


def _batches(dataset: Dataset) -> Iterator[tuple[Int[Tensor, " B"], Clips]]:
    """Batches of clips from the starts of episodes on, with the numbers of their episodes."""
    length = int(min(CLIP_FRAMES, dataset.lengths.max()))
    at_once = max(1, BATCH_FRAMES // length)
    for first in range(0, dataset.episodes, at_once):
        some = dataset.select(np.arange(first, min(first + at_once, dataset.episodes)))
        clips = load_clips(some, length, stride=length)
        # clips come in rounds: the first of every episode, then the second of every longer one, ...
        counts = np.maximum(1, some.lengths // length)
        rounds = [np.flatnonzero(counts > number) for number in range(int(counts.max()))]
        yield torch.from_numpy(first + np.concatenate(rounds)), clips


def _perceive_batch(model: AIME, clips: Clips, episode: Int[Tensor, " B"], hardware: Hardware) -> Experience:
    with hardware.autocast():
        track = model.filter_sequence(clips.frames, clips.actions, clips.action_valid, clips.states).track
    carry = model.dynamics.states_at(track, torch.arange(clips.valid.shape[1], device=clips.valid.device))
    numbers = episode.to(clips.valid.device)[:, None].expand(clips.valid.shape)
    every = Experience(
        carry.map(lambda each: each.float()), clips.actions, clips.targets(model.config.state.width), numbers
    )
    return every.rows(clips.valid)
