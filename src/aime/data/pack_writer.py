"""Writing of packs; see `aime.data.bundled.packing` for the format."""

from __future__ import annotations

import io
import itertools
import json
import lzma
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from aime.data.bundled.packing import DIGESTS, FORMAT, PACK, PARTS, VERSION, Part, encode, save_arrays
from aime.data.dataset import Dataset
from aime.errors import AimeError
from aime.primitives.files import write_atomically

_FRAMES_FOR_BACKGROUND = 256


def pack(parts: Mapping[Part, Dataset], path: str | Path) -> None:
    """Pack data sets losslessly into one file, and the digests of their episodes into a second one.

    Masks are kept if all episodes have them.

    Args:
        parts: "train", which also defines the background, "validation" and "test".
        path: NAME.npy.xz; must not exist.

    Raises:
        AimeError: if the parts differ in a width or share an episode, if the file exists, or if it cannot be written.
    """
    path = Path(path)
    if path.exists():
        raise AimeError(f"{path}: exists already and packs are never overwritten; delete it or choose another name")
    datasets = {part: parts[part] for part in PARTS}
    train = datasets["train"]
    for each in datasets.values():
        _check_agreement(train, each)
    for one, other in itertools.combinations(PARTS, 2):
        if set(datasets[one].digests) & set(datasets[other].digests):
            raise AimeError(f"{path}: {one} and {other} share an episode, expected none in common: record another")
    facts = {part: {"episodes": data.episodes, "attributes": data.attributes} for part, data in datasets.items()}
    masks = all(bool(data.has_mask.all()) for data in datasets.values())
    header = {"format": FORMAT, "version": VERSION, "state": train.has_state, "masks": masks, "parts": facts}
    background = _background(train)
    packed = io.BytesIO()
    with lzma.open(packed, "wb", check=lzma.CHECK_SHA256, preset=9 | lzma.PRESET_EXTREME) as stream:
        save_arrays(stream, np.frombuffer(json.dumps(header).encode(), dtype=np.uint8), background)
        for data in datasets.values():
            for episode in data:
                save_arrays(stream, *encode(episode if masks else replace(episode, mask=None), background))
    digests = {part: data.digests for part, data in datasets.items()}
    table = path.with_name(path.name.removesuffix(PACK) + DIGESTS)
    write_atomically(table, (json.dumps(digests, indent=0) + "\n").encode())
    write_atomically(path, packed.getbuffer())


def _check_agreement(train: Dataset, other: Dataset) -> None:
    for field in ("image_size", "action_width", "state_width"):
        expected, found = getattr(train, field), getattr(other, field)
        if expected != found:
            raise AimeError(
                f"{other.name}: {field} is {found}, expected {expected} as in {train.name}; record it alike"
            )


def _background(dataset: Dataset) -> UInt8[np.ndarray, "H W 3"]:
    """The median of each pixel and channel, an estimate of the static background."""
    frames = np.stack(list(dataset.spread_frames(_FRAMES_FOR_BACKGROUND)))
    background: np.ndarray = np.sort(frames, axis=0)[len(frames) // 2]
    return background
