"""Conversion of frames between bytes, in files and batches, and floats in [0, 1], in the model and its losses."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

GREY_LEVEL = 1 / 255
"""The difference of two consecutive bytes, as floats."""


def to_unit(
    frames: UInt8[Tensor, "..."] | Float[Tensor, "..."], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "..."]:
    """Convert bytes to floats in [0, 1] of type `dtype`; floats are unchanged."""
    return frames if frames.is_floating_point() else frames.to(dtype) / 255


def to_bytes(frames: UInt8[Tensor, "..."] | Float[Tensor, "..."]) -> UInt8[Tensor, "..."]:
    """Convert floats, clipped to [0, 1], to rounded bytes; bytes are unchanged."""
    return (frames.clamp(0, 1) * 255).round().to(torch.uint8) if frames.is_floating_point() else frames
