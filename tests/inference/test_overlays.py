"""Attention over frames: brightest where it is highest, coloured by its slot, and arrows that point where it went."""

from __future__ import annotations

import numpy as np
import pytest

from aime.inference.overlays import (
    ACTUAL,
    ARROW_SCALE,
    EXPECTED,
    PALETTE,
    draw_maps,
    full_scale,
    motion_overlay,
    overlay,
    slot_overlay,
)

GRID, CELL = 4, 4
SIZE = GRID * CELL


def grey_frames(count: int = 1) -> np.ndarray:
    return np.full((count, SIZE, SIZE, 3), 90, np.uint8)


def one_cell(row: int, column: int, weight: float = 0.7) -> np.ndarray:
    maps = np.full((1, GRID, GRID), (1 - weight) / (GRID**2 - 1))
    maps[0, row, column] = weight
    return maps


def cell_of(picture: np.ndarray, row: int, column: int) -> np.ndarray:
    return picture[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]


def test_the_overlay_is_brightest_in_the_cell_where_the_map_peaks() -> None:
    maps = one_cell(1, 2)
    drawn = overlay(grey_frames(), maps, full_scale(maps))[0].astype(int).sum(axis=-1)
    peak = cell_of(drawn, 1, 2)
    assert (peak == drawn.max()).all()
    assert (drawn == drawn.max()).sum() == CELL**2


def test_the_frame_stays_where_nothing_is_attended() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    drawn = overlay(frames, np.zeros((1, GRID, GRID)), 0.5)[0].astype(float)
    luma = frames[0] @ np.array([0.299, 0.587, 0.114])
    assert (drawn[..., 0] == drawn[..., 2]).all(), "grey"
    assert np.corrcoef(drawn[..., 0].ravel(), luma.ravel())[0, 1] > 0.999


def test_maps_that_are_compared_share_a_scale() -> None:
    sharp, blunt = one_cell(0, 0, 0.8), one_cell(3, 3, 0.4)
    full = full_scale(np.concatenate([sharp] * 9 + [blunt]))
    assert full == pytest.approx(0.8)
    bright = [draw_maps(maps, full).astype(int).sum(axis=-1).max() for maps in (sharp, blunt)]
    assert bright[0] > 1.3 * bright[1]


def test_an_even_map_is_not_drawn_as_a_peak() -> None:
    even = np.full((3, 16, 16), 1 / 256)
    assert full_scale(even) == pytest.approx(3 / 256)
    assert full_scale(np.ones((1, 1, 1))) == 1


def test_each_cell_has_the_colour_of_its_strongest_slot() -> None:
    shares = np.full((1, 3, GRID, GRID), 1 / 3)
    shares[0, :, 0, 0] = 0, 1, 0
    shares[0, :, 2, 3] = 0.1, 0.1, 0.8
    drawn = slot_overlay(grey_frames(), shares)[0].astype(float)
    plain = cell_of(drawn, 3, 0)
    assert (plain == plain[0, 0, 0]).all(), "nobody's: grey"
    towards = [cell_of(drawn, *place)[0, 0] - plain[0, 0] for place in ((0, 0), (2, 3))]
    for moved, slot in zip(towards, (1, 2), strict=True):
        wanted = np.array(PALETTE[slot]) - plain[0, 0]
        assert moved @ wanted / np.linalg.norm(moved) / np.linalg.norm(wanted) > 0.999
    strength = [np.linalg.norm(moved) / np.linalg.norm(np.array(PALETTE[slot]) - plain[0, 0])
                for moved, slot in zip(towards, (1, 2), strict=True)]  # fmt: skip
    assert strength[1] / strength[0] == pytest.approx((0.8 - 1 / 3) / (1 - 1 / 3), abs=0.02)


def test_a_single_slot_has_every_cell() -> None:
    drawn = slot_overlay(grey_frames(), np.ones((1, 1, GRID, GRID)))[0]
    assert (drawn == drawn[0, 0]).all()
    assert drawn[0, 0, 2] > drawn[0, 0, 0], "the first colour is a blue"


def test_arrows_start_at_the_centre_of_mass_and_point_along_the_motion() -> None:
    scale = 4
    cell = CELL * scale
    start, right, down = np.array([[1.0, 1.0]]), np.array([[0.5, 0.0]]), np.array([[0.0, 0.4]])
    drawn = motion_overlay(grey_frames(), start, right, down, GRID, scale)[0]
    assert drawn.shape == (SIZE * scale, SIZE * scale, 3)
    centre = int(1.5 * cell)
    assert (drawn[centre, centre] == 255).all(), "a dot"
    across, along = np.nonzero((drawn == EXPECTED).all(axis=-1))
    assert along.max() == pytest.approx(centre + 0.5 * cell * ARROW_SCALE, abs=2)
    assert along.min() >= centre - 3 and abs(across - centre).max() <= 6
    downwards, aside = np.nonzero((drawn == ACTUAL).all(axis=-1))
    assert downwards.max() == pytest.approx(centre + 0.4 * cell * ARROW_SCALE, abs=2)
    assert downwards.min() >= centre - 3 and abs(aside - centre).max() <= 6


def test_no_motion_is_a_dot() -> None:
    still = np.zeros((1, 2))
    drawn = motion_overlay(grey_frames(), np.array([[2.0, 2.0]]), still, still, GRID, 2)[0]
    coloured = (drawn == EXPECTED).all(axis=-1) | (drawn == ACTUAL).all(axis=-1)
    assert not coloured.any()
    assert (drawn == 255).all(axis=-1).any()
