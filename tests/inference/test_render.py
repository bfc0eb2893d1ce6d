"""Pictures pixel by pixel: frames where they belong, enlarged exactly, marked as seen or dreamt."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
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
    Note,
    Strip,
    encode_picture,
    enlarge,
    film,
    filmstrip,
    gallery,
    heat,
    scale_for,
    stack,
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


def test_a_note_is_a_bar_as_long_as_its_share_under_its_frame() -> None:
    notes = [None, None, Note("a", (9, 200, 9), 0.5), None, Note("b", (200, 9, 9), 1.0)]
    rows = [replace(strip("dream", 150), notes=notes), strip("plain", 100)]
    image = np.asarray(filmstrip(rows, [1, 2, 4], CONTEXT, SCALE))
    for colour, length, place in (((9, 200, 9), TILE // 2, 1), ((200, 9, 9), TILE, 2)):
        down, across = np.nonzero((image == colour).all(axis=-1))
        bar = down == down.min()
        assert bar.sum() == length
        assert across[bar].min() == image.shape[1] - (3 - place) * (TILE + GAP)
        above = image[down.min() - BAR - 1, across[bar].min()]
        assert (above == 150 + [1, 2, 4][place]).all()
    # a finer row is drawn as large as the first
    fine = [strip("coarse", 100), replace(strip("fine", 0), frames=np.full((LENGTH, TILE, TILE, 3), 77, np.uint8))]
    image = np.asarray(filmstrip(fine, [0], CONTEXT, SCALE))
    assert (image == 77).all(axis=-1).sum() == TILE**2


def test_a_note_without_a_number_is_drawn_as_the_longest() -> None:
    rows = [replace(strip("dream", 150), notes=[Note("nan", (9, 200, 9), float("nan"))] * LENGTH)]
    image = np.asarray(filmstrip(rows, [0], CONTEXT, SCALE))
    down, _ = np.nonzero((image == (9, 200, 9)).all(axis=-1))
    assert (down == down.min()).sum() == TILE


def test_a_gallery_shows_each_row_s_own_frames() -> None:
    rows = [strip("many", 100), replace(strip("few", 200), frames=strip("few", 200).frames[:2])]
    image = np.asarray(gallery(rows, SCALE))
    for value, count in ((100, 1), (104, 1), (201, 1), (202, 0)):
        assert (image == value).all(axis=-1).sum() == count * TILE**2


def test_a_stack_has_every_picture_below_the_one_before() -> None:
    images = [Image.new("RGB", size, (shade,) * 3) for size, shade in (((5, 3), 200), ((9, 4), 100))]
    stacked = np.asarray(stack(images))
    assert stacked.shape == (3 + GAP + 4, 9, 3)
    assert (stacked[:3, :5] == 200).all()
    assert (stacked[3 + GAP :] == 100).all()


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


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_a_picture_keeps_every_pixel(kind: Literal["png", "webp"]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8))
    found = Image.open(io.BytesIO(encode_picture(image, kind)))
    assert found.format == kind.upper() and (np.asarray(found) == np.asarray(image)).all()
