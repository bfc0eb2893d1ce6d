"""Which operations autocast may round."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def fp32_to_learn(like: Tensor) -> AbstractContextManager[object]:
    """A context without autocast where gradients are recorded; where none are, it stays as it was. For imagined paths.

    Rounding the products of an imagined path to bf16 moves a latent by a fiftieth of what another sample of the prior
    moves it (`notes/experiments.md`), and they take a quarter of the time; a gradient would carry the rounding of every
    step of the path.
    """
    return torch.autocast(like.device.type, enabled=False) if torch.is_grad_enabled() else nullcontext()


def as_multiplied(weight: Tensor) -> Tensor:
    """A weight in the type that autocast multiplies it in, where no gradient is recorded.

    Autocast keeps the rounded form of parameters alone: what was made of them it would round again at every use.
    """
    device = weight.device.type
    if torch.is_grad_enabled() or not torch.is_autocast_enabled(device) or weight.dtype != torch.float32:
        return weight
    return weight.to(torch.get_autocast_dtype(device))
