"""Maps: floors, distances, centres and shifts, each against arithmetic by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aime.attention.maps import CELL, centre_of_mass, map_kl, over_pixels, over_space, shift, with_floor

GRID = 6


def maps(seed: int, count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return over_space(torch.rand(count, GRID, GRID, generator=generator, dtype=torch.float64))


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_a_map_with_a_floor_is_a_distribution_without_empty_cells(seed: int) -> None:
    floored = with_floor(over_space(torch.relu(maps(seed) - 0.02)))
    torch.testing.assert_close(floored.sum((-2, -1)), torch.ones(3, dtype=torch.float64))
    assert floored.min() >= 0.01 / GRID**2 - 1e-12


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_kl_is_torch_s(seed: int) -> None:
    left, right = with_floor(maps(seed)), with_floor(maps(seed + 1))
    reference = torch.distributions.kl_divergence(
        torch.distributions.Categorical(left.flatten(1)), torch.distributions.Categorical(right.flatten(1))
    )
    torch.testing.assert_close(map_kl(left, right), reference)


def test_the_centre_is_x_then_y() -> None:
    one = torch.zeros(1, GRID, GRID)
    one[0, 1, 4] = 1
    assert centre_of_mass(one).tolist() == [[4.0, 1.0]]


def test_over_pixels_each_cell_keeps_its_place_and_its_weight() -> None:
    before = maps(0)[None]
    after = over_pixels(before)
    assert after.shape == (1, 3, CELL * GRID, CELL * GRID)
    for y in range(GRID):
        for x in range(GRID):
            pixels = after[..., CELL * y : CELL * (y + 1), CELL * x : CELL * (x + 1)]
            torch.testing.assert_close(pixels.sum((-2, -1)), before[..., y, x])
            torch.testing.assert_close(pixels.amax((-2, -1)), pixels.amin((-2, -1)))


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (2, 0), (0, -1), (-3, 4)])
def test_a_shift_by_whole_cells_moves_them(dx: int, dy: int) -> None:
    before = maps(0)
    after = shift(before, torch.tensor([[dx, dy]] * 3, dtype=torch.float64))
    expected = torch.zeros_like(before)
    for y in range(GRID):
        for x in range(GRID):
            if 0 <= y + dy < GRID and 0 <= x + dx < GRID:
                expected[:, y + dy, x + dx] = before[:, y, x]
    torch.testing.assert_close(after, expected)


@settings(max_examples=30, deadline=None)
@given(st.floats(-1.9, 1.9), st.floats(-1.9, 1.9))
def test_a_shift_moves_the_centre_of_what_stays_inside_by_as_much(dx: float, dy: float) -> None:
    before = torch.zeros(1, GRID, GRID, dtype=torch.float64)
    before[0, 2:4, 2:4] = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    motion = torch.tensor([[dx, dy]], dtype=torch.float64)
    torch.testing.assert_close(centre_of_mass(shift(before, motion)), centre_of_mass(before) + motion)
