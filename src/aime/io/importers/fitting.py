"""Converts frames of any size and number of cameras to square frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from aime.io.importers.interface import BadEpisode

Fit = Literal["stretch", "crop", "pad"]
"""For frames that are not square: distort them, cut the longer sides, or add black bars."""


def tile_columns(cameras: int) -> int:
    """Columns and rows of the grid for a number of cameras: 2 for 2 to 4, 3 for 5 to 9."""
    return int(np.ceil(np.sqrt(cameras)))


def together(
    streams: Sequence[Iterator[UInt8[np.ndarray, "n *pixels"]]],
) -> Iterator[list[UInt8[np.ndarray, "n *pixels"]]]:
    """Blocks of several cameras with equal numbers of frames.

    Raises:
        BadEpisode: if one camera ends before another.
    """
    held: list[UInt8[np.ndarray, "n *pixels"] | None] = [next(stream, None) for stream in streams]
    while any(block is not None for block in held):
        blocks = [block for block in held if block is not None]
        if len(blocks) < len(held):
            raise BadEpisode("its cameras have not all as many frames, expected that; choose one with --camera")
        length = min(map(len, blocks))
        yield [block[:length] for block in blocks]
        rest = [block[length:] for block in blocks]
        held = [part if len(part) else next(stream, None) for part, stream in zip(rest, streams, strict=True)]


def fit_frames(
    blocks: Sequence[UInt8[np.ndarray, "n h w 3"]], size: int, fit: Fit
) -> UInt8[np.ndarray, "n {size} {size} 3"]:
    """Resize the frames of each camera, antialiased, and tile them row by row into one; empty tiles are black.

    Args:
        blocks: one per camera; sizes may differ between cameras.
        size: height and width of the result in pixels.
        fit: of frames that are not square.
    """
    return _tiled(blocks, size, fit, Image.Resampling.BILINEAR)


def fit_masks(
    blocks: Sequence[UInt8[np.ndarray, "n h w"]], size: int, fit: Fit
) -> UInt8[np.ndarray, "n {size} {size}"]:
    """The same for masks, with nearest neighbours; empty tiles and bars are background (0).

    Args:
        blocks: one per camera, of the size of its frames.
        size: height and width of the result in pixels.
        fit: of masks that are not square.
    """
    return _tiled(blocks, size, fit, Image.Resampling.NEAREST)


def _tiled(
    blocks: Sequence[UInt8[np.ndarray, "n h w *channels"]], size: int, fit: Fit, filter: Image.Resampling
) -> UInt8[np.ndarray, "n {size} {size} *channels"]:
    columns = tile_columns(len(blocks))
    edges = np.linspace(0, size, columns + 1).round().astype(int)
    if columns == 1 and blocks[0].shape[1:3] == (size, size):
        return blocks[0]
    out = np.zeros((len(blocks[0]), size, size, *blocks[0].shape[3:]), np.uint8)
    for camera, block in enumerate(blocks):
        row, column = divmod(camera, columns)
        tile = out[:, edges[row] : edges[row + 1], edges[column] : edges[column + 1]]
        for target, frame in zip(tile, block, strict=True):
            _fit_into(target, frame, fit, filter)
    return out


def _fit_into(
    target: UInt8[np.ndarray, "H W *channels"],
    frame: UInt8[np.ndarray, "h w *channels"],
    fit: Fit,
    filter: Image.Resampling,
) -> None:
    height, width = target.shape[:2]
    if frame.shape == target.shape:
        target[:] = frame
        return
    box, inner = _boxes(frame.shape[0], frame.shape[1], height, width, fit)
    top, left, rows, columns = inner
    # pillow's bilinear filter widens with the reduction, so that every pixel contributes
    picture = Image.fromarray(frame).resize((columns, rows), filter, box=box)
    target[top : top + rows, left : left + columns] = np.asarray(picture)


def _boxes(
    h: int, w: int, height: int, width: int, fit: Fit
) -> tuple[tuple[float, float, float, float], tuple[int, int, int, int]]:
    """The source rectangle (left, upper, right, lower), and the target (top, left, rows, columns)."""
    whole, everywhere = (0.0, 0.0, float(w), float(h)), (0, 0, height, width)
    if fit == "stretch":
        return whole, everywhere
    if fit == "crop":
        scale = min(w / width, h / height)
        left, upper = (w - width * scale) / 2, (h - height * scale) / 2
        return (left, upper, w - left, h - upper), everywhere
    scale = max(w / width, h / height)
    rows, columns = max(round(h / scale), 1), max(round(w / scale), 1)
    return whole, ((height - rows) // 2, (width - columns) // 2, rows, columns)
