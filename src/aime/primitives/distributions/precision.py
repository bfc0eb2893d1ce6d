"""Which precision the distributions compute in."""

from __future__ import annotations

import torch
from torch import Tensor


def accurate(values: Tensor) -> Tensor:
    """The values in float32, or in their own dtype where that is wider: densities do not survive bfloat16."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
