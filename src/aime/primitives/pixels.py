"""The two forms of a frame: bytes from 0 to 255 in files and batches, floats in [0, 1] in the model and its losses."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

GREY_LEVEL = 1 / 255
"""The distance of two neighbouring bytes, as floats."""


def to_unit(
    frames: UInt8[Tensor, "..."] | Float[Tensor, "..."], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "..."]:
    """Frames as floats in [0, 1]: bytes in `dtype`, divided by 255; floats as they are."""
    return frames if frames.is_floating_point() else frames.to(dtype) / 255


def to_bytes(frames: UInt8[Tensor, "..."] | Float[Tensor, "..."]) -> UInt8[Tensor, "..."]:
    """Frames as bytes: floats are clipped to [0, 1] and rounded; bytes as they are."""
    return (frames.clamp(0, 1) * 255).round().to(torch.uint8) if frames.is_floating_point() else frames
