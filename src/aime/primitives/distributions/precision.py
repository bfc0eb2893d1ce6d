"""The precision of the distributions."""

from __future__ import annotations

import torch
from torch import Tensor


def accurate(values: Tensor) -> Tensor:
    """Cast to float32, unless the dtype is wider: bfloat16 is too coarse for densities."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
