"""Drawing frames: enlarged without smoothing, labelled, in filmstrips and in the panels of a film."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import matplotlib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

BACKGROUND = (18, 20, 24)
INK = (226, 229, 235)
FAINT = (139, 146, 158)
SEEN = (76, 141, 246)
"""Marks what the model saw."""
DREAMT = (240, 160, 48)
"""Marks what the model made; `FAINT` marks what it neither saw nor made."""

GAP, BAR = 4, 3
"""Between tiles, and height of the bar over each, in screen pixels."""
TEXT = 13
"""Height of the letters of a film, in screen pixels; a filmstrip, which is usually shown smaller, has larger ones."""
LINE = 20
"""Height of a line of text of that height."""

DIFFERENCE_FULL_SCALE = 128
"""The difference of pixel values that is drawn brightest."""


@dataclass(frozen=True)
class Strip:
    """The frames of one row of a filmstrip, or of one tile of a film.

    Attributes:
        label: a word or three.
        frames: `[T,H,W,3]`.
        dreamt: whether the model made what lies beyond the context; else it is the truth.
    """

    label: str
    frames: UInt8[np.ndarray, "T H W 3"]
    dreamt: bool = True


def enlarge(frame: UInt8[np.ndarray, "H W 3"], scale: int) -> UInt8[np.ndarray, "H_scaled W_scaled 3"]:
    """Every pixel as a square of `scale` x `scale`, so that nothing is smoothed over."""
    return frame.repeat(scale, axis=0).repeat(scale, axis=1)


def heat(difference: UInt8[np.ndarray, "*N"]) -> UInt8[np.ndarray, "*N 3"]:
    """Differences as colours: black is none, and `DIFFERENCE_FULL_SCALE` or more is brightest."""
    levels = np.minimum(difference.astype(np.int64) * 255 // DIFFERENCE_FULL_SCALE, 255)
    colours = (matplotlib.colormaps["inferno"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    colours[0] = 0
    return colours[levels]


def scale_for(image_size: int, target: int) -> int:
    """The whole number of screen pixels per pixel that brings a frame nearest to `target` pixels; at least 1."""
    return max(1, round(target / image_size))


def filmstrip(rows: Sequence[Strip], columns: Sequence[int], context: int, scale: int) -> Image.Image:
    """Rows of frames over time, with their numbers above, and a bar over each: seen or dreamt.

    Args:
        rows: strips of equal length and size.
        columns: the frames to show, 0-based.
        context: frames that the model saw; the number of a column counts from the last of them.
        scale: screen pixels per pixel.
    """
    tile = rows[0].frames.shape[1] * scale
    size = max(TEXT, tile // 6)
    left, top = max(_width(row.label, size) for row in rows) + 3 * GAP, size * LINE // TEXT
    step = tile + GAP + BAR
    image = Image.new("RGB", (left + len(columns) * (tile + GAP), top + len(rows) * step), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for place, column in enumerate(columns):
        x, ahead = left + place * (tile + GAP), column - context + 1
        number = f"+{ahead}" if ahead > 0 else str(ahead)
        _text(draw, (x + tile // 2, top // 2), number, FAINT, "mm", size)
        for line, row in enumerate(rows):
            _tile(image, draw, (x, top + line * step), row, column, ahead > 0, scale)
    for line, row in enumerate(rows):
        _text(draw, (left - 2 * GAP, top + line * step + BAR + tile // 2), row.label, INK, "rm", size)
    return image


def film(grid: Sequence[Sequence[Strip]], context: int, scale: int) -> list[Image.Image]:
    """One picture for each frame: a row of tiles for each clip, labels above, below a bar of time, seen then dreamt.

    Args:
        grid: for each clip its strips; all of equal length and size, with the labels of the first row.
        context: frames that the model saw.
        scale: screen pixels per pixel.
    """
    return [_film_frame(grid, number, context, scale) for number in range(len(grid[0][0].frames))]


def _film_frame(grid: Sequence[Sequence[Strip]], number: int, context: int, scale: int) -> Image.Image:
    tile, length = grid[0][0].frames.shape[1] * scale, len(grid[0][0].frames)
    step = tile + GAP + BAR
    width, height = len(grid[0]) * (tile + GAP) + GAP, 2 * LINE + len(grid) * step + 2 * GAP
    # video codecs want even sides
    image = Image.new("RGB", (width + width % 2, height + height % 2), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for column, strip in enumerate(grid[0]):
        _text(draw, (GAP + column * (tile + GAP) + tile // 2, LINE // 2), strip.label, INK, "mm")
    for line, strips in enumerate(grid):
        for column, strip in enumerate(strips):
            place = GAP + column * (tile + GAP), LINE + line * step
            _tile(image, draw, place, strip, number, number >= context, scale)
    _time_bar(draw, (GAP, LINE + len(grid) * step + GAP, width - GAP), number, context, length)
    return image


def encode_png(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _tile(
    image: Image.Image,
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    strip: Strip,
    number: int,
    ahead: bool,
    scale: int,
) -> None:
    """One frame, with the bar that says whether it was seen, dreamt or neither."""
    frame = enlarge(strip.frames[number], scale)
    x, y = place
    mark = (DREAMT if strip.dreamt else FAINT) if ahead else SEEN
    draw.rectangle((x, y, x + frame.shape[1] - 1, y + BAR - 1), mark)
    image.paste(Image.fromarray(frame), (x, y + BAR))


def _time_bar(draw: ImageDraw.ImageDraw, place: tuple[int, int, int], number: int, context: int, length: int) -> None:
    """A dash for each frame, bright up to now, and how far that is in words."""
    left, top, right = place
    for frame in range(length):
        begin, end = (left + (right - left) * each // length for each in (frame, frame + 1))
        bright = SEEN if frame < context else DREAMT
        dim = tuple((each + 2 * back) // 3 for each, back in zip(bright, BACKGROUND, strict=True))
        draw.rectangle((begin, top, max(begin, end - 2), top + GAP - 1), bright if frame <= number else dim)
    seen = number < context
    words = f"seen: {number + 1} of {context}" if seen else f"dreamt: {number - context + 1} of {length - context}"
    _text(draw, (left, top + GAP + LINE // 2), words, SEEN if seen else DREAMT, "lm")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _width(text: str, size: int) -> int:
    return round(_font(size).getlength(text))


def _text(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    colour: tuple[int, int, int],
    anchor: str,
    size: int = TEXT,
) -> None:
    draw.text(place, text, fill=colour, font=_font(size), anchor=anchor)
