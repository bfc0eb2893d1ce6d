from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aime.io.importers.fitting import fit_frames, together
from aime.io.importers.interface import BadEpisode


def test_a_checkerboard_becomes_grey_not_black_or_white() -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = fit_frames([np.broadcast_to(board[None, :, :, None], (2, 64, 64, 3))], 16, "stretch")
    assert small.shape == (2, 16, 16, 3)
    assert np.abs(small.astype(int) - 127).max() <= 6


def test_what_becomes_of_a_frame_that_is_not_square() -> None:
    frame = np.full((1, 32, 64, 3), 100, np.uint8)
    frame[:, :, :16] = 250  # the left quarter
    stretched, cropped, padded = (fit_frames([frame], 32, fit)[0, ..., 0] for fit in ("stretch", "crop", "pad"))
    assert (stretched[:, :7] > 240).all() and (stretched[:, 9:] < 110).all()
    assert (cropped == 100).all()
    assert not padded[:8].any() and not padded[24:].any() and (padded[8:24, :7] > 240).all()


@pytest.mark.parametrize(("cameras", "places"), [(2, [(0, 0), (0, 1)]), (3, [(0, 0), (0, 1), (1, 0)])])
def test_cameras_are_tiled_row_by_row(cameras: int, places: list[tuple[int, int]]) -> None:
    blocks = [np.full((1, 20 + camera, 20, 3), 50 * (camera + 1), np.uint8) for camera in range(cameras)]
    frame = fit_frames(blocks, 32, "stretch")[0, ..., 0]
    for camera, (row, column) in enumerate(places):
        assert (frame[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] == 50 * (camera + 1)).all()
    assert (frame == 0).sum() == (4 - cameras) * 256


@given(st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=3))
def test_blocks_of_cameras_are_cut_alike(lengths: list[list[int]]) -> None:
    totals = [sum(parts) for parts in lengths]
    streams = []
    for parts in lengths:
        frames = np.arange(sum(parts), dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
        streams.append(iter(np.split(frames, np.cumsum(parts)[:-1]) if parts else []))
    if len(set(totals)) > 1:
        with pytest.raises(BadEpisode, match="cameras"):
            list(together(streams))
        return
    blocks = list(together(streams))
    assert all(len({len(block) for block in part}) == 1 for part in blocks)
    for camera in range(len(lengths)):
        seen = [block[camera][:, 0, 0, 0] for block in blocks]
        assert np.concatenate([*seen, np.zeros(0, np.uint8)]).tolist() == list(range(totals[camera]))
