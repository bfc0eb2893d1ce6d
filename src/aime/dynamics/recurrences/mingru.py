"""A linear recurrence that runs over whole clips as a parallel scan."""

from __future__ import annotations

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from aime.dynamics.recurrences.interface import Recurrence
from aime.primitives.scan import linear_scan


class MinGRU(Recurrence):
    """h_t = (1 - z_t) h_{t-1} + z_t h̃_t, where z_t = σ(W_z u_t + b_z) and h̃_t = W_h u_t + b_h read the input alone.

    It has no memory besides the belief. Update gates start at about a quarter; h_0 is learned. Coefficients are in
    [0, 1] and the scan never divides, so that it needs no logarithms.
    Reference: Feng et al. 2024, "Were RNNs all we needed?", arXiv 2410.01201, section 3.1.
    """

    def __init__(self, inputs: int, belief: int) -> None:
        super().__init__()
        self.gate = nn.Linear(inputs, belief)
        self.candidate = nn.Linear(inputs, belief)
        nn.init.constant_(self.gate.bias, -1.0)
        self.initial_belief = nn.Parameter(torch.zeros(belief))

    def initial(self, batch: int) -> tuple[Float[Tensor, "B belief"], tuple[()]]:
        """h_0."""
        return repeat(self.initial_belief, "h -> b h", b=batch), ()

    def forward(
        self, inputs: Float[Tensor, "B T inputs"], belief: Float[Tensor, "B belief"], memory: tuple[()]
    ) -> Float[Tensor, "B T belief"]:
        """See `Recurrence.forward`."""
        update, candidate = self._read(inputs[:, :-1], belief)
        keep = torch.cat([torch.ones_like(belief[:, None]), 1 - update], dim=1)
        return linear_scan(keep, torch.cat([belief[:, None], update * candidate], dim=1))

    def memories(
        self, inputs: Float[Tensor, "B T inputs"], beliefs: Float[Tensor, "B T belief"], memory: tuple[()]
    ) -> tuple[()]:
        """Nothing."""
        return ()

    def step(
        self, inputs: Float[Tensor, "B inputs"], belief: Float[Tensor, "B belief"], memory: tuple[()]
    ) -> tuple[Float[Tensor, "B belief"], tuple[()]]:
        """See `Recurrence.step`."""
        update, candidate = self._read(inputs, belief)
        return torch.addcmul(update * candidate, 1 - update, belief), ()

    def _read(self, inputs: Float[Tensor, "..."], like: Tensor) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """The update gate and the candidate, in full precision: errors of a recurrence add up."""
        with torch.autocast(inputs.device.type, enabled=False):
            inputs = inputs.to(like.dtype)
            return self.gate(inputs).sigmoid(), self.candidate(inputs)
