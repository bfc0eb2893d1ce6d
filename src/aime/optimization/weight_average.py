"""The exponential moving average of the weights, which evaluation and prediction use."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


class WeightAverage(Generic[Model]):
    """Exponential moving average of a model's parameters, in their own precision; buffers are copied.

    The decay after n updates is min(decay, (1 + n) / (10 + n)). Buffers (codebook, likelihood variance) are moving
    averages already. torch's `AveragedModel` is not used because it reads its counter from the device at every step.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.model = _copy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        self.finetuned: Model | None = None
        """A copy with fine-tuned dynamics, if one was made since the last update."""

    @property
    def best(self) -> Model:
        """The fine-tuned copy; the average if there is none."""
        return self.model if self.finetuned is None else self.finetuned

    def copied(self) -> Model:
        """A copy of the average for fine-tuning."""
        return _copy(self.model)

    @torch.no_grad()
    def update(self, model: Model) -> None:
        """Average in the weights of `model`, the module that this average was built from."""
        self.updates += 1
        self.finetuned = None
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        torch._foreach_copy_(list(self.model.buffers()), list(model.buffers()))


def _copy(model: Model) -> Model:
    copied = copy.deepcopy(model)
    for part in copied.modules():
        if isinstance(part, nn.RNNBase):
            # cuDNN expects contiguous weights; deepcopy separates them
            part.flatten_parameters()
    return copied
