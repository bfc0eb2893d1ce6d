"""Control of autocast's precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def fp32_if_grad(like: Tensor) -> AbstractContextManager[object]:
    """A context that disables autocast if gradients are enabled; for rollouts of the prior.

    Without gradients bf16 is accurate enough: rounding changes an imagined latent by a fiftieth of the difference
    between two samples of the prior (`notes/experiments.md`). A gradient would accumulate the rounding of every step.
    """
    return torch.autocast(like.device.type, enabled=False) if torch.is_grad_enabled() else nullcontext()


def to_autocast_dtype(weight: Tensor) -> Tensor:
    """A weight in autocast's type, if autocast is on and gradients are disabled.

    Autocast caches casts of parameters only; it would cast a tensor computed from parameters at every use.
    """
    device = weight.device.type
    if torch.is_grad_enabled() or not torch.is_autocast_enabled(device) or weight.dtype != torch.float32:
        return weight
    return weight.to(torch.get_autocast_dtype(device))
