"""Drawing frames: enlarged without smoothing, labelled, in filmstrips and in the panels of a film."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

BACKGROUND = (18, 20, 24)
INK = (226, 229, 235)
FAINT = (139, 146, 158)
SEEN = (76, 141, 246)
"""Marks frames that the model saw."""
DREAMT = (240, 160, 48)
"""Marks frames that the model predicted; `FAINT` marks true frames that it did not see."""

GAP, BAR = 4, 3
"""Between tiles, and height of the bar over each, in screen pixels."""
TEXT = 13
"""Height of the letters of a film, in screen pixels; a filmstrip, which is usually shown smaller, has larger ones."""
LINE = 20
"""Height of a line of text of that height."""

DIFFERENCE_FULL_SCALE = 128
"""The difference of pixel values that is drawn brightest."""


class Note(NamedTuple):
    """The note under a frame of a filmstrip: a bar, and a text in its colour."""

    text: str
    colour: Colour
    share: float
    """Length of the bar, in [0, 1] of the frame's width."""


@dataclass(frozen=True)
class Strip:
    """The frames of one row of a filmstrip, or of one tile of a film.

    Attributes:
        label: a word or three; a filmstrip breaks it where there is a line break.
        frames: `[T,H,W,3]`.
        dreamt: whether the frames after the context are predicted, not true.
        notes: of each frame what stands under it in a filmstrip, or nothing under any.
    """

    label: str
    frames: UInt8[np.ndarray, "T H W 3"]
    dreamt: bool = True
    notes: Sequence[Note | None] | None = None


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
    """Rows of frames over time, with their numbers above, and a bar over each: seen or predicted.

    Args:
        rows: strips of equal length; the first has the size that `scale` enlarges, and others, finer or coarser by a
            whole factor, are drawn as large.
        columns: the frames to show, 0-based.
        context: frames that the model saw; the number of a column counts from the last of them.
        scale: screen pixels per pixel.
    """
    tile = rows[0].frames.shape[1] * scale
    size = _letters(tile)
    top = size * LINE // TEXT
    image, left, tops = _sheet(rows, len(columns), tile, top)
    draw = ImageDraw.Draw(image)
    for place, column in enumerate(columns):
        x, ahead = left + place * (tile + GAP), column - context + 1
        number = f"+{ahead}" if ahead > 0 else str(ahead)
        _text(draw, (x + tile // 2, top // 2), number, FAINT, "mm", size)
        for y, row in zip(tops, rows, strict=True):
            _tile(image, draw, (x, y), row, column, ahead > 0, tile)
            _note(draw, (x, y + BAR + tile), row, column, tile)
    return image


def gallery(rows: Sequence[Strip], scale: int) -> Image.Image:
    """Rows of frames that do not follow on each other, each with its label; rows may be shorter than the first.

    Args:
        rows: of frames of equal size; under a frame stands its note.
        scale: screen pixels per pixel.
    """
    tile = rows[0].frames.shape[1] * scale
    image, left, tops = _sheet(rows, max(len(row.frames) for row in rows), tile, 0)
    draw = ImageDraw.Draw(image)
    for y, row in zip(tops, rows, strict=True):
        for place, frame in enumerate(row.frames):
            x = left + place * (tile + GAP)
            image.paste(Image.fromarray(enlarge(frame, scale)), (x, y + BAR))
            _note(draw, (x, y + BAR + tile), row, place, tile)
    return image


def stack(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures one below the other, each as wide as it is."""
    width, height = max(each.width for each in images), sum(each.height for each in images)
    stacked = Image.new("RGB", (width, height + GAP * (len(images) - 1)), BACKGROUND)
    for number, each in enumerate(images):
        stacked.paste(each, (0, sum(above.height + GAP for above in images[:number])))
    return stacked


def film(grid: Sequence[Sequence[Strip]], context: int, scale: int) -> list[Image.Image]:
    """One picture for each frame: a row of tiles for each clip, labels above, below a bar of time, seen then predicted.

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
            _tile(image, draw, place, strip, number, number >= context, tile)
    _time_bar(draw, (GAP, LINE + len(grid) * step + GAP, width - GAP), number, context, length)
    return image


def encode_picture(image: Image.Image, kind: Literal["png", "webp"]) -> bytes:
    """The bytes of a picture file, without loss; WebP takes a quarter less than PNG."""
    buffer = io.BytesIO()
    image.save(buffer, kind.upper(), optimize=True, lossless=True)
    return buffer.getvalue()


def _sheet(rows: Sequence[Strip], columns: int, tile: int, top: int) -> tuple[Image.Image, int, list[int]]:
    """An empty picture with the rows' labels, where its frames begin from the left, and where each row does."""
    size = _letters(tile)
    lines = [line for row in rows for line in row.label.splitlines()]
    left = max(_width(line, size) for line in lines) + 3 * GAP
    heights = [tile + GAP + BAR + (0 if row.notes is None else _note_height(tile)) for row in rows]
    tops = [top + sum(heights[:number]) for number in range(len(rows))]
    image = Image.new("RGB", (left + columns * (tile + GAP), top + sum(heights)), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for y, row in zip(tops, rows, strict=True):
        _text(draw, (left - 2 * GAP, y + BAR + tile // 2), row.label, INK, "rm", size)
    return image, left, tops


def _letters(tile: int) -> int:
    return max(TEXT, tile // 6)


def _note_height(tile: int) -> int:
    return 2 * BAR + _letters(tile) * LINE // TEXT


def _note(draw: ImageDraw.ImageDraw, place: tuple[int, int], strip: Strip, number: int, tile: int) -> None:
    """Draw the note under a frame, if there is one."""
    note = None if strip.notes is None else strip.notes[number]
    if note is None:
        return
    x, y = place
    share = note.share if math.isfinite(note.share) else 1.0  # of a damaged model; the text says so
    draw.rectangle((x, y + BAR, x + max(1, round(share * tile)) - 1, y + 2 * BAR - 1), note.colour)
    middle = y + 2 * BAR + _letters(tile) * LINE // TEXT // 2
    _text(draw, (x + tile // 2, middle), note.text, note.colour, "mm", _letters(tile) * 4 // 5)


def _tile(
    image: Image.Image,
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    strip: Strip,
    number: int,
    ahead: bool,
    tile: int,
) -> None:
    """One frame, with the bar that says whether it was seen, predicted or neither."""
    frame = enlarge(strip.frames[number], tile // strip.frames.shape[1])
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
    words = f"seen: {number + 1} of {context}" if seen else f"predicted: {number - context + 1} of {length - context}"
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
    draw.text(place, text, fill=colour, font=_font(size), anchor=anchor, align="right")
