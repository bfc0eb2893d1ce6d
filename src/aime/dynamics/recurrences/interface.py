"""What every recurrence offers to the latent dynamics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

Memory = Any
"""A recurrence's state besides the belief: a pytree of tensors whose first axis is the batch; `()` for none."""

Step = Callable[
    [Float[Tensor, "B inputs"], Float[Tensor, "B belief"], Memory], tuple[Float[Tensor, "B belief"], Memory]
]
"""From one input, the belief and the memory to the next belief and memory."""


class Recurrence(nn.Module):
    """h_t from h_{t-1}, a memory and the input of step t; the belief h is all that others read.

    The forms of one recurrence give the same numbers: `forward` over a whole clip, and `step` after `step`.
    """

    def initial(self, batch: int) -> tuple[Float[Tensor, "B belief"], Memory]:
        """The learned belief h_0 and the memory before the first step, of `batch` sequences."""
        raise NotImplementedError

    def forward(
        self, inputs: Float[Tensor, "B T inputs"], belief: Float[Tensor, "B belief"], memory: Memory
    ) -> Float[Tensor, "B T belief"]:
        """The beliefs that enter each of T steps: the given one, then those after each input but the last."""
        raise NotImplementedError

    def memories(
        self, inputs: Float[Tensor, "B T inputs"], beliefs: Float[Tensor, "B T belief"], memory: Memory
    ) -> Memory:
        """The memories that enter each step, `[B,T,...]`, from inputs, beliefs of `forward`, and the first memory."""
        raise NotImplementedError

    def step(
        self, inputs: Float[Tensor, "B inputs"], belief: Float[Tensor, "B belief"], memory: Memory
    ) -> tuple[Float[Tensor, "B belief"], Memory]:
        """One step."""
        raise NotImplementedError

    def many_steps(self) -> Step:
        """`step` for many calls in a row with the present weights; a recurrence may prepare them once."""
        return self.step
