"""Conversion of frames between bytes and floats."""

from __future__ import annotations

import torch

from aime.primitives.pixels import GREY_LEVEL, to_bytes, to_unit


def test_every_byte_comes_back_from_its_float() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_unit(every), torch.arange(256) / 255)
    assert torch.equal(to_bytes(to_unit(every)), every)
    assert to_unit(every, torch.float64).dtype == torch.float64


def test_floats_stay_and_are_clipped_where_they_become_bytes() -> None:
    frames = torch.tensor([-0.2, 0.4 * GREY_LEVEL, 0.6 * GREY_LEVEL, 0.5, 1.3])
    assert to_unit(frames) is frames
    assert to_bytes(frames).tolist() == [0, 0, 1, 128, 255]
    assert to_bytes(to_bytes(frames)).dtype == torch.uint8
