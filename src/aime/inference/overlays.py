"""Attention drawn over frames: where it lies, which slot takes what, and how it moves."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
from einops import repeat
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from aime.inference.render import DREAMT, SEEN, Colour, enlarge

PALETTE: tuple[Colour, ...] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (213, 94, 0),
)
"""Colours that people with any kind of colour blindness tell apart: Okabe & Ito 2008, "Color Universal Design".

Their dark blue is left out, which cannot be read on a dark ground.
"""

EXPECTED, ACTUAL = DREAMT, SEEN
"""Of arrows: where the model expected the map to go, and where it went."""

LEAST_FULL_SCALE = 3.0
"""A weight is never drawn brightest below so many times the even one, or an even map would look like a peak."""

ARROW_SCALE = 4.0
"""Arrows are drawn so many times longer than the motion: a cell is a few pixels, and most motions are less."""

_OPACITY = 0.85
_DIMMED = 0.75


def full_scale(*maps: Float[np.ndarray, "*N h w"]) -> float:
    """The weight to draw brightest, the same for all maps that are compared; in (0, 1].

    It is the 90 % quantile of the maps' peaks, so that one sharp map does not darken the rest, and `LEAST_FULL_SCALE`
    times the even weight 1/(h·w) or more.

    Args:
        maps: that sum to 1 over space.
    """
    peaks = np.concatenate([each.max(axis=(-2, -1)).ravel() for each in maps])
    cells = maps[0].shape[-2] * maps[0].shape[-1]
    return float(max(np.quantile(peaks, 0.9), min(1.0, LEAST_FULL_SCALE / cells)))


def draw_maps(maps: Float[np.ndarray, "*N h w"], full: float) -> UInt8[np.ndarray, "*N h w 3"]:
    """Maps as colours of matplotlib's inferno, whose lightness rises evenly: black is 0, `full` or more is brightest.

    Args:
        maps: weights of the cells, 0 or more.
        full: from `full_scale`.
    """
    return (_inferno(maps / full) * 255).round().astype(np.uint8)


def overlay(
    frames: UInt8[np.ndarray, "*N H W 3"], maps: Float[np.ndarray, "*N h w"], full: float
) -> UInt8[np.ndarray, "*N H W 3"]:
    """Maps over frames in grey: the more weight a cell has, the brighter its colour and the less of the frame shows.

    Args:
        frames: 0 to 255; H and W are multiples of h and w.
        maps: weights of the cells, 0 or more.
        full: from `full_scale`.
    """
    level = np.clip(_fit(maps, frames) / full, 0, 1)
    return _blend(frames, _inferno(level), _OPACITY * level)


def slot_overlay(
    frames: UInt8[np.ndarray, "*N H W 3"], slot_maps: Float[np.ndarray, "*N S h w"]
) -> UInt8[np.ndarray, "*N H W 3"]:
    """Each cell in the colour of the slot that takes the most of it, over the frame in grey.

    The colour is as strong as the slot's share is above an even one: absent at 1/S, full at 1.

    Args:
        frames: 0 to 255; H and W are multiples of h and w.
        slot_maps: shares of each cell, which sum to 1 over the slots.
    """
    even = 1 / slot_maps.shape[-3]
    colours = np.array(PALETTE)[slot_maps.argmax(axis=-3) % len(PALETTE)] / 255
    strength = (slot_maps.max(axis=-3) - even) / (1 - even) if even < 1 else slot_maps.max(axis=-3)
    fitted = np.stack([_fit(colours[..., channel], frames) for channel in range(3)], axis=-1)
    return _blend(frames, fitted, _OPACITY * np.clip(_fit(strength, frames), 0, 1))


def motion_overlay(
    frames: UInt8[np.ndarray, "T H W 3"],
    start: Float[np.ndarray, "T 2"],
    expected: Float[np.ndarray, "T 2"],
    actual: Float[np.ndarray, "T 2"],
    grid: int,
    scale: int,
) -> UInt8[np.ndarray, "T H_scaled W_scaled 3"]:
    """Two arrows a frame, `ARROW_SCALE` times as long as the motion: `EXPECTED` and `ACTUAL`.

    Args:
        frames: 0 to 255.
        start: (x, y) from which both arrows start, in cells from the middle of the left upper one.
        expected: (dx, dy) in cells.
        actual: (dx, dy) in cells.
        grid: cells along a side of the map.
        scale: screen pixels per pixel of a frame; the result has frames of that size, so that arrows are not coarse.
    """
    cell = frames.shape[1] * scale / grid
    drawn = []
    for frame, origin, hoped, happened in zip(_grey(frames), start, expected, actual, strict=True):
        image = Image.fromarray(enlarge((frame * 255).round().astype(np.uint8), scale))
        draw = ImageDraw.Draw(image)
        x, y = ((origin + 0.5) * cell).tolist()
        for motion, colour, width in ((happened, ACTUAL, 5), (hoped, EXPECTED, 2)):
            dx, dy = (motion * cell * ARROW_SCALE).tolist()
            _arrow(draw, (x, y), (x + dx, y + dy), colour, width)
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), (255, 255, 255))
        drawn.append(np.asarray(image))
    return np.stack(drawn)


def _arrow(
    draw: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float], colour: Colour, width: int
) -> None:
    length = math.dist(start, end)
    if length < 1:
        return
    draw.line((*start, *end), colour, width)
    along = (end[0] - start[0]) / length, (end[1] - start[1]) / length
    head = min(length, 4.0 + width)
    back = end[0] - head * along[0], end[1] - head * along[1]
    aside = -along[1] * head / 2, along[0] * head / 2
    draw.polygon([end, (back[0] + aside[0], back[1] + aside[1]), (back[0] - aside[0], back[1] - aside[1])], colour)


def _inferno(level: Float[np.ndarray, "*N"]) -> Float[np.ndarray, "*N 3"]:
    return matplotlib.colormaps["inferno"](np.clip(level, 0, 1))[..., :3]


def _fit(maps: Float[np.ndarray, "*N h w"], frames: UInt8[np.ndarray, "*N H W 3"]) -> Float[np.ndarray, "*N H W"]:
    """Cells as large as the pixels that they stand for, with sharp edges: nothing is known within a cell."""
    high, wide = frames.shape[-3] // maps.shape[-2], frames.shape[-2] // maps.shape[-1]
    return repeat(maps, "... h w -> ... (h high) (w wide)", high=high, wide=wide)


def _grey(frames: UInt8[np.ndarray, "*N H W 3"]) -> Float[np.ndarray, "*N H W 3"]:
    """Frames in [0, `_DIMMED`] without colour, so that every colour in the picture is attention."""
    luma = frames @ np.array([0.299, 0.587, 0.114]) / 255
    return repeat(_DIMMED * luma, "... h w -> ... h w rgb", rgb=3)


def _blend(
    frames: UInt8[np.ndarray, "*N H W 3"], colours: Float[np.ndarray, "*N H W 3"], opacity: Float[np.ndarray, "*N H W"]
) -> UInt8[np.ndarray, "*N H W 3"]:
    mixed = (1 - opacity[..., None]) * _grey(frames) + opacity[..., None] * colours
    return (mixed * 255).round().astype(np.uint8)
