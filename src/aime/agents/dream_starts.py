"""Where dreams begin: states after real frames, read from clips of a run's data."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from aime.agents.experience import open_rewarded
from aime.data import Clips, ClipSampler, Dataset
from aime.dynamics.states import Carry
from aime.errors import AimeError
from aime.world_model.model import AIME
from aime.world_model.saved import RunInfo

STARTS_A_CLIP = 16
"""Frames of a clip that dreams begin at: a pass over a clip gives the state after each of its frames."""

AT_ONCE = 8
"""Clips that are watched in one call, which bounds memory."""


class Starts(NamedTuple):
    """The states after M real frames."""

    state: Carry
    last_map: Float[Tensor, "M h w"]
    """U_t of the frame."""
    frames: UInt8[Tensor, "M H W 3"]

    @property
    def number(self) -> int:
        """M."""
        return int(self.frames.shape[0])

    def pick(self, places: Int[Tensor, " N"]) -> Starts:
        """Those at some places, in the order given."""
        return Starts(self.state.pick(places), self.last_map[places], self.frames[places])

    def replace(self, rows: Int[Tensor, " N"], others: Starts, visible: bool) -> Starts:
        """These with N others in place of some rows; maps and frames stay as they are unless `visible`."""
        state = self.state.replace(rows, others.state)
        if not visible:
            return self._replace(state=state)
        last_map = self.last_map.index_copy(0, rows, others.last_map)
        return Starts(state, last_map, self.frames.index_copy(0, rows, others.frames))


def open_starts(info: RunInfo, data: str | Path | None, context: int) -> Dataset:
    """The episodes that dreams of a run begin in, after all checks that need no weights.

    They are all but the held-out ones: see `open_rewarded`.

    Args:
        info: the run.
        data: what `open_dataset` takes; by default, the run's own data.
        context: frames that a dream has seen at least when it begins, 1 or more.

    Raises:
        AimeError: if the model has no reward head, if there is no such data, if its frames or actions do not fit the
            model, if it has no rewards, or no episode of `context` frames.
    """
    dataset = open_rewarded(info, data)
    fitting = np.flatnonzero(dataset.lengths >= context)
    if fitting.size == 0:
        raise AimeError(
            f"{dataset.name}: the longest episode has {int(dataset.lengths.max())} frames, expected {context} or more "
            "(context): take a smaller context, or record longer episodes"
        )
    return dataset.select(fitting)


@torch.inference_mode()
def watch_starts(model: AIME, dataset: Dataset, context: int, count: int, seed: int = 0) -> Starts:
    """Watch real clips and keep the states after their frames from frame `context` on.

    Args:
        model: in eval mode.
        dataset: its episodes have `context` frames or more.
        context: frames that the belief has seen at least, 1 or more.
        count: states, 1 or more; a few less or more come back, as whole clips are watched.
        seed: of the clips; the same seed gives the same starts.

    Raises:
        AimeError: if a file is damaged, or every frame from `context` on ends its episode.
    """
    length = context + min(STARTS_A_CLIP, count) - 1
    batch = -(-count // min(STARTS_A_CLIP, count))
    clips = ClipSampler(dataset, batch, length, seed).sample(0)
    parts = [_watch(model, clips.rows(slice(first, first + AT_ONCE)), context) for first in range(0, batch, AT_ONCE)]
    starts = _join(parts)
    if starts.number == 0:
        raise AimeError(f"{dataset.name}: no episode goes on after frame {context}: take a smaller context")
    return starts


def _watch(model: AIME, clips: Clips, context: int) -> Starts:
    clips = clips.to(model.device)
    seen = model.filter_sequence(clips.frames, clips.actions, clips.action_valid, clips.states)
    times = torch.arange(context - 1, clips.frames.shape[1], device=model.device)
    kept: Bool[Tensor, " B S"] = (clips.valid & ~clips.terminated)[:, times]
    state = model.dynamics.states_at(seen.track, times).pick(kept)
    frames = clips.frames[:, times].movedim(2, -1)
    return Starts(state, seen.maps[:, times][kept], frames[kept].contiguous())


def _join(parts: list[Starts]) -> Starts:
    state = Carry.join([part.state for part in parts])
    return Starts(state, torch.cat([part.last_map for part in parts]), torch.cat([part.frames for part in parts]))
