"""What an agent learns from: recorded frames as the states that a world model believes, held fixed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from aime.data import Clips, Dataset, load_clips, open_dataset
from aime.dynamics.states import Carry
from aime.errors import AimeError
from aime.inference.loading import check_fit
from aime.inference.own_data import held_out_by, own_data
from aime.primitives.hardware import Hardware
from aime.training.targets import targets_of
from aime.world_model import input_validation
from aime.world_model.model import AIME
from aime.world_model.outputs import Targets
from aime.world_model.saved import RunInfo

LONGEST = 256
"""Frames that are perceived in one pass; in a longer episode the belief begins again after as many."""

PERCEIVED_AT_ONCE = 1024
"""Frames, which bounds the memory."""


class Experience(NamedTuple):
    """N recorded frames, in the order of their episodes, on the device of the model."""

    states: Carry
    """What is believed at each frame, `[N,·]`."""
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
        targets = Targets(*(field[chosen] for field in self.targets))
        return Experience(self.states.pick(chosen), self.actions[chosen], targets, self.episode[chosen])


def open_experience(info: RunInfo, data: str | Path | None) -> Dataset:
    """The episodes that an agent of a run learns from.

    They are all but those that the run or one of its ancestors holds out, and those that bundled data does: agents are
    judged on these. Of several of the same content there is one: a clone's validation episodes are no copies of those
    that it learns from.

    Args:
        info: the run.
        data: what `open_dataset` takes; by default, the run's own data.

    Raises:
        AimeError: if there is no such data, its frames or actions do not fit the model, or all of it is held out.
    """
    dataset = open_dataset(own_data(info) if data is None else data)
    check_fit(dataset, info)
    learned = dataset.part("train", held_out_by(info, dataset))
    return learned.select(learned.different).in_scale(info.action_scale)


def check_rewarding(info: RunInfo) -> None:
    """Refuse a run whose model predicts no reward.

    Raises:
        AimeError: if its control pillar is switched off.
    """
    if info.model.control.kind == "none":
        raise AimeError(
            f"{info.path}: its model has no reward head (model.control.kind is none); expected one: train again "
            "without --model.control.kind none"
        )


def check_rewarded(dataset: Dataset) -> None:
    """Refuse data without rewards, of which a reward head has learned nothing.

    Raises:
        AimeError: if every reward is 0 or missing.
    """
    if not dataset.has_rewards:
        raise AimeError(
            f"{dataset.name}: every reward is 0 or missing; expected rewards: take data that has them, or add them and "
            "train again"
        )


@torch.no_grad()
def perceive(
    model: AIME,
    dataset: Dataset,
    frames: int,
    hardware: Hardware,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Experience:
    """Watch whole episodes as an agent would, from their first frame on.

    Args:
        model: in eval mode, on the device.
        dataset: its frames and actions fit the model.
        frames: at most about so many, of episodes at equal distances through the data set; 1 or more.
        hardware: where and how precisely to compute.
        told: is called with (frames done, frames in all), now and then.

    Raises:
        AimeError: if a file is damaged.
    """
    chosen = dataset.spread_episodes(frames)
    total, parts, done = int(chosen.lengths.sum()), [], 0
    for episode, clips in _passes(chosen):
        parts.append(_believe(model, clips.to(hardware.device), episode, hardware))
        done += parts[-1].frames
        told(done, total)
    states = Carry.join([part.states for part in parts])
    targets = Targets(*(torch.cat(field) for field in zip(*(part.targets for part in parts), strict=True)))
    actions, episodes = (torch.cat([getattr(part, name) for part in parts]) for name in ("actions", "episode"))
    return Experience(states, actions, targets, episodes)


def _passes(dataset: Dataset) -> Iterator[tuple[Int[Tensor, " B"], Clips]]:
    """Batches of clips from the starts of episodes on, with the numbers of their episodes."""
    length = int(min(LONGEST, dataset.lengths.max()))
    at_once = max(1, PERCEIVED_AT_ONCE // length)
    for first in range(0, dataset.episodes, at_once):
        some = dataset.select(np.arange(first, min(first + at_once, dataset.episodes)))
        clips = load_clips(some, length, stride=length)
        # of every episode first its first clip, then its second, ...
        counts = np.maximum(1, some.lengths // length)
        rounds = [np.flatnonzero(counts > number) for number in range(int(counts.max()))]
        yield torch.from_numpy(first + np.concatenate(rounds)), clips


def _believe(model: AIME, clips: Clips, episode: Int[Tensor, " B"], hardware: Hardware) -> Experience:
    with hardware.autocast():
        states = input_validation.observed(clips.states, model.config)
        track = model.filter_sequence(clips.frames, clips.actions, clips.action_valid, states).track
    believed = model.dynamics.states_at(track, torch.arange(clips.valid.shape[1], device=clips.valid.device))
    numbers = episode.to(clips.valid.device)[:, None].expand(clips.valid.shape)
    valid = clips.valid
    return Experience(
        believed.map(lambda each: each[valid].float()),
        clips.actions[valid],
        Targets(*(field[valid] for field in targets_of(clips, model.config))),
        numbers[valid],
    )
