"""Where dreams begin: states after real frames, from clips of a run's data."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.utils._pytree import tree_map

from aime.data import Clips, ClipSampler, Dataset
from aime.dynamics.states import Carry
from aime.errors import AimeError
from aime.inference.learned_data import open_rewarded
from aime.world_model.model import AIME
from aime.world_model.saved import RunInfo

STARTS_PER_CLIP = 16
"""One pass over a clip gives a state after each of its frames; dreams begin at the last of these."""
BATCH_CLIPS = 8
"""Clips in one pass, which bounds the memory."""


class DreamStates(NamedTuple):
    """N dreams at one step; where no frames are drawn, map and frame have the height 0."""

    carry: Carry
    last_map: Float[Tensor, "N h w"]
    """U_t where the frame was observed, P_t where it was imagined."""
    frames: UInt8[Tensor, "N H W 3"]

    def pick(self, rows: Int[Tensor, " M"]) -> DreamStates:
        """Some of the dreams."""
        return tree_map(lambda each: each[rows], self)

    def replace(self, rows: Int[Tensor, " M"], others: DreamStates) -> DreamStates:
        """M other dreams in place of some of these."""
        return tree_map(lambda old, new: old.index_copy(0, rows, new), self, others)

    def without_frames(self) -> DreamStates:
        """The states alone."""
        return self._replace(last_map=self.last_map[:, :0], frames=self.frames[:, :0])


def open_starts(info: RunInfo, data: str | Path | None, context: int) -> Dataset:
    """The episodes that dreams of a run begin in, by default of its own data, without what it holds out.

    Raises:
        AimeError: as `open_rewarded` does, or if no episode has `context` frames.
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
def observe_starts(model: AIME, dataset: Dataset, context: int, count: int) -> DreamStates:
    """The states after some frames that have `context` - 1 frames or more before them.

    Args:
        model: in eval mode.
        dataset: its episodes have `context` frames or more.
        context: 1 or more.
        count: about so many states, 1 or more: whole clips are observed.

    Raises:
        AimeError: if a file is damaged, or every frame from `context` on ends its episode.
    """
    per_clip = min(STARTS_PER_CLIP, count)
    clips = ClipSampler(dataset, -(-count // per_clip), context + per_clip - 1, seed=0).sample(0)
    batches = [clips.rows(slice(first, first + BATCH_CLIPS)) for first in range(0, len(clips.frames), BATCH_CLIPS)]
    starts: DreamStates = tree_map(lambda *each: torch.cat(each), *(_observe(model, each, context) for each in batches))
    if not len(starts.frames):
        raise AimeError(f"{dataset.name}: no episode goes on after frame {context}: take a smaller context")
    return starts


def _observe(model: AIME, clips: Clips, context: int) -> DreamStates:
    clips = clips.to(model.device)
    seen = model.filter_sequence(clips.frames, clips.actions, clips.action_valid, clips.states)
    times = torch.arange(context - 1, clips.frames.shape[1], device=model.device)
    kept: Bool[Tensor, " B S"] = (clips.valid & ~clips.terminated)[:, times]
    carry = model.dynamics.states_at(seen.track, times).pick(kept)
    frames = clips.frames[:, times].movedim(2, -1)
    return DreamStates(carry, seen.maps[:, times][kept], frames[kept].contiguous())
