"""The moving average of the weights, which evaluation, prediction and export use."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


class WeightAverage(Generic[Model]):
    """Exponential moving average of a model's parameters, in their own precision; buffers are copied.

    The decay is min(decay, (1 + n) / (10 + n)) after n updates, so that the start is soon forgotten. Buffers (the
    codebook with its revived codes, the likelihood's variance) are averages of their own. torch's `AveragedModel` is
    not used because it reads its counter back from the device at every step.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.model = _copy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        self.finetuned: Model | None = None
        """A copy whose dynamics were fine-tuned since the last update."""

    @property
    def best(self) -> Model:
        """The fine-tuned copy, or the average where there is none."""
        return self.model if self.finetuned is None else self.finetuned

    def copied(self) -> Model:
        """A copy of the average, to fine-tune."""
        return _copy(self.model)

    @torch.no_grad()
    def update(self, model: Model) -> None:
        """Move towards the weights of `model`, the uncompiled module that this was built from."""
        self.updates += 1
        self.finetuned = None
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        torch._foreach_copy_(list(self.model.buffers()), list(model.buffers()))


def _copy(model: Model) -> Model:
    copied = copy.deepcopy(model)
    for part in copied.modules():
        if isinstance(part, nn.RNNBase):
            # cuDNN wants its weights in one piece, which those of a copy are not
            part.flatten_parameters()
    return copied
