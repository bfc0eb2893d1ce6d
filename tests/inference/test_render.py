"""Pictures pixel by pixel: frames where they belong, enlarged exactly, marked as seen or dreamt."""

from __future__ import annotations

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from aime.inference.render import (
    BAR,
    DREAMT,
    FAINT,
    GAP,
    LINE,
    SEEN,
    Strip,
    encode_png,
    enlarge,
    film,
    filmstrip,
    heat,
    scale_for,
)

CONTEXT, LENGTH, SIZE, SCALE = 2, 5, 16, 3
TILE = SIZE * SCALE


def strip(label: str, base: int, dreamt: bool = True) -> Strip:
    """Frame t has the grey value base + t."""
    values = np.arange(base, base + LENGTH, dtype=np.uint8)
    return Strip(label, np.broadcast_to(values[:, None, None, None], (LENGTH, SIZE, SIZE, 3)), dreamt)


@given(frame=arrays(np.uint8, (3, 4, 3)), scale=st.integers(1, 4))
def test_enlarging_repeats_pixels(frame: np.ndarray, scale: int) -> None:
    large = enlarge(frame, scale)
    assert large.shape == (3 * scale, 4 * scale, 3)
    for row in range(3 * scale):
        for column in range(4 * scale):
            assert (large[row, column] == frame[row // scale, column // scale]).all()


def test_heat_rises_from_black() -> None:
    colours = heat(np.arange(256, dtype=np.uint8))
    brightness = colours.astype(int).sum(axis=-1)
    assert colours.shape == (256, 3)
    assert (colours[0] == 0).all()
    assert brightness[1] > 0
    assert (np.diff(brightness) >= 0).all()
    assert (colours[128:] == colours[255]).all()


def test_scale_is_whole_and_near() -> None:
    assert [scale_for(size, 128) for size in (8, 48, 64, 128, 300)] == [16, 3, 2, 1, 1]


def test_filmstrip_shows_the_frames_asked_for() -> None:
    rows = [strip("truth", 100, dreamt=False), strip("dream", 150)]
    columns = [1, 2, 4]
    image = np.asarray(filmstrip(rows, columns, CONTEXT, SCALE))
    left, top = image.shape[1] - len(columns) * (TILE + GAP), image.shape[0] - len(rows) * (TILE + GAP + BAR)
    for place, column in enumerate(columns):
        for line, (base, ahead) in enumerate([(100, FAINT), (150, DREAMT)]):
            x, y = left + place * (TILE + GAP), top + line * (TILE + GAP + BAR)
            assert (image[y + BAR : y + BAR + TILE, x : x + TILE] == base + column).all()
            expected = SEEN if column < CONTEXT else ahead
            assert (image[y : y + BAR, x : x + TILE] == expected).all()


def test_film_shows_every_frame_of_every_clip() -> None:
    grid = [[strip("truth", 50, dreamt=False), strip("dream", 90)], [strip("", 130), strip("", 170)]]
    pictures = film(grid, CONTEXT, SCALE)
    assert len(pictures) == LENGTH
    for number, picture in enumerate(pictures):
        image = np.asarray(picture)
        # an H.264 encoder wants even sides
        assert image.shape[0] % 2 == image.shape[1] % 2 == 0
        for line, bases in enumerate([(50, 90), (130, 170)]):
            for column, base in enumerate(bases):
                x, y = GAP + column * (TILE + GAP), LINE + line * (TILE + GAP + BAR) + BAR
                assert (image[y : y + TILE, x : x + TILE] == base + number).all()
        mark = SEEN if number < CONTEXT else DREAMT
        assert (image[LINE, 2 * GAP + TILE] == mark).all()


def test_png_keeps_every_pixel() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8))
    assert (np.asarray(Image.open(io.BytesIO(encode_png(image)))) == np.asarray(image)).all()
