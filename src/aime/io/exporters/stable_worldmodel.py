"""Exporter to one HDF5 file in stable-worldmodel's schema, with actions in the original units.

Frame rate, task, action ranges, and names of states, actions and mask ids are attributes of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from aime.data.action_scale import ActionScale
from aime.data.dataset import Dataset
from aime.data.mask_names import note_mask_names
from aime.data.shards import Attribute
from aime.data.source_range import note_range
from aime.data.state_names import ACTION_ATTRIBUTE, ATTRIBUTE
from aime.data.stored_frames import CHUNK_STEPS
from aime.io.exporters.interface import Original, Settings, originals, whole


def export(dataset: Dataset, out: Path, settings: Settings) -> None:
    """Write the file `out`, which must not exist.

    Raises:
        AimeError: if it exists, or a frame cannot be read.
    """
    size, frames = dataset.image_size, dataset.frames
    with whole(out) as place, h5py.File(place, "w") as file:
        lengths = dataset.lengths.astype(np.int64)
        file["ep_len"], file["ep_offset"] = lengths, np.cumsum(lengths) - lengths
        unscaled = ActionScale.identity(dataset.action_width).attributes()
        file.attrs.update(_noted({**unscaled, **dataset.attributes}))
        shape, chunks = (frames, size, size, 3), (min(CHUNK_STEPS, frames), size, size, 3)
        packed = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "fletcher32": True}
        file.create_dataset("pixels", shape, "uint8", chunks=chunks, **packed)
        if dataset.has_mask.any():
            file.create_dataset("mask", shape[:3], "uint8", chunks=chunks[:3], **packed)
            file["ep_mask"] = dataset.has_mask
            file.attrs.update(note_mask_names(dataset.mask_names))
        file.create_dataset("action", (frames, dataset.action_width), "float32", fletcher32=True)
        file.create_dataset("reward", (frames,), "float32", fletcher32=True)
        file.create_dataset("terminated", (frames,), "bool", fletcher32=True)
        if dataset.has_state:
            file.create_dataset("state", (frames, dataset.state_width), "float32", fletcher32=True)
        row = 0
        for episode in originals(dataset):
            _put(file, row, episode)
            row += len(episode.pixels)
            settings.progress(len(episode.pixels))


def _noted(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    kept = ("fps", "task", ATTRIBUTE, ACTION_ATTRIBUTE)
    return {**{name: attributes[name] for name in kept if name in attributes}, **note_range(attributes)}


def _put(file: Any, row: int, episode: Original) -> None:
    rows = slice(row, row + len(episode.pixels))
    file["pixels"][rows] = episode.pixels
    file["action"][rows] = np.nan if episode.action is None else episode.action
    file["reward"][rows] = np.nan if episode.reward is None else episode.reward
    file["terminated"][rows] = episode.terminated
    if "mask" in file:
        file["mask"][rows] = 0 if episode.mask is None else episode.mask
    if episode.state is not None:
        file["state"][rows] = episode.state
