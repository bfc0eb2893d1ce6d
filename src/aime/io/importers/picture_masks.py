"""Masks of a directory of pictures: a directory `masks` in it, with a PNG file of the same name for each picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from aime.errors import one_line
from aime.io.importers.files import opened
from aime.io.importers.interface import BadEpisode, block_length
from aime.io.importers.picture_names import pictures_in
from aime.io.importers.pictures import MAX_FILE_BYTES, UNDECODABLE, open_picture, picture_size

MASKS = "masks"


def has_masks(pictures: Path) -> bool:
    """Whether a directory of pictures has masks."""
    return (pictures / MASKS).is_dir() and any((pictures / MASKS).glob("*.png"))


def read_masks(pictures: Path) -> Iterator[UInt8[np.ndarray, "n h w"]]:
    """The masks of a directory of pictures, in the order of the pictures, in blocks.

    Raises:
        BadEpisode: if a mask is missing, damaged, of another size, or not of 8 bits.
    """
    paths = pictures_in(pictures)
    size = picture_size(paths[0])
    length = block_length(*size)
    for start in range(0, len(paths), length):
        block = [_read_mask(pictures / MASKS / f"{path.stem}.png", size) for path in paths[start : start + length]]
        yield np.stack(block)


def _read_mask(path: Path, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    with opened(path) as file:
        try:
            with open_picture(file.read(MAX_FILE_BYTES), ("PNG",)) as picture:
                mode, ids = picture.mode, np.asarray(picture)
        except UNDECODABLE as error:
            raise BadEpisode(
                f"{path}: cannot be decoded ({one_line(error)}), expected a PNG file; save it again"
            ) from error
    if ids.shape[:2] != size or mode not in ("L", "P"):
        raise BadEpisode(
            f"{path}: is {ids.shape[0]}x{ids.shape[1]} of mode {mode}, expected ids of {size[0]}x{size[1]} in 8-bit "
            "grey or palette; save it so, or move it away"
        )
    return ids
