"""A picture of what a model predicts now, drawn in about a second: for use during training."""

from __future__ import annotations

import numpy as np
from PIL import Image

from aime.data import Dataset
from aime.data.clips import read_clips
from aime.inference.dreams import dream
from aime.inference.filtering import filter_clips
from aime.inference.loading import moving_clip_starts
from aime.inference.render import filmstrip, scale_for, stack
from aime.inference.strips import columns, snapshot_strips
from aime.world_model.model import AIME

CONTEXT = 5
"""Frames that the open-loop prediction sees, or half of the clip where that is fewer."""

LENGTH = 30
"""Frames of a clip: more are slow to draw, and the report shows them."""

CLIPS, AHEAD, TILE = 2, 8, 96
"""Clips, predicted frames of each, and screen pixels that a frame is enlarged to, about."""


def draw_snapshot(model: AIME, dataset: Dataset) -> Image.Image:
    """Filmstrips of truth, reconstruction, open-loop prediction, a sample and attention, the same clips at each call.

    Args:
        model: in eval mode.
        dataset: to take `CLIPS` moving clips from, of `LENGTH` frames or of its longest episode.

    Raises:
        AimeError: if a file is damaged.
    """
    # an episode of a single frame is padded by its own repetition
    length = max(2, min(LENGTH, int(dataset.lengths.max())))
    longest = np.flatnonzero(dataset.lengths >= min(length, int(dataset.lengths.max())))
    chosen = dataset.select(longest)
    clips = read_clips(chosen, moving_clip_starts(chosen, length, CLIPS), length)
    context = min(CONTEXT, length // 2)
    dreams, filtered = dream(model, clips, context, samples=1), filter_clips(model, clips)
    scale, shown = scale_for(dataset.image_size, TILE), columns(context, length, AHEAD)
    strips = [snapshot_strips(dreams, filtered, clip) for clip in range(dreams.clips)]
    return stack([filmstrip(rows, shown, context, scale) for rows in strips])
