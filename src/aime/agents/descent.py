"""An optimizer step of an agent's networks."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


def descend(optimizer: torch.optim.Optimizer, loss: Float[Tensor, ""], clip: float = 10.0) -> None:
    """One step down a loss, the norm of the gradient of all that the optimizer holds being `clip` at most."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_([weight for group in optimizer.param_groups for weight in group["params"]], clip)
    optimizer.step()
