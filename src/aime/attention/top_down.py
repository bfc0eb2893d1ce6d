"""A belief and a latent to the prior map: where the model expects to attend, without seeing the frame."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from aime.attention.maps import over_space, shift, with_floor
from aime.primitives.belief_mlp import BeliefMLP
from aime.primitives.boundary_layers import BoundaryLinear

FARTHEST = 8.0
"""The most cells that a map is moved from one frame to the next, along each axis."""


class TopDown(NamedTuple):
    """What is expected of N frames."""

    map: Float[Tensor, "N h w"]
    """P_t, sums to 1."""
    motion: Float[Tensor, "N 2"]
    """(dx, dy) in cells, each within ±8: how far the centre of mass is expected to move from one frame to the next."""


class TopDownAttention(nn.Module):
    """P_t ∝ exp(κ log shift(M, (dx, dy)) + logits), (dx, dy) and logits from (h_{t-1}, z_t), M the last map.

    It starts as the last map itself. M is the last bottom-up map where the last frame was seen and the last prior map
    where it was imagined; reading the last fused map instead would make training sequential.
    """

    def __init__(self, belief: int, latent: int, hidden: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.readout = BeliefMLP(belief, latent, hidden)
        self.motion = BoundaryLinear(hidden, 2)
        self.logits = BoundaryLinear(hidden, grid * grid)
        self.log_sharpness = nn.Parameter(torch.zeros(()))
        for weight in (*self.motion.parameters(), *self.logits.parameters()):
            nn.init.zeros_(weight)

    def forward(
        self,
        belief: Float[Tensor, "N belief"],
        latent: Float[Tensor, "N latent"],
        last_map: Float[Tensor, "N h w"],
        one_step: Bool[Tensor, " N"] | None = None,
    ) -> TopDown:
        """The map expected where `belief` is h_{t-1} and `latent` z_t, from the map of the step before.

        Where `one_step` is False, `last_map` is older than one step: the motion then gets no gradient.
        """
        with torch.autocast(belief.device.type, enabled=False):
            features = self.readout(belief, latent)
            motion = FARTHEST * torch.tanh(self.motion(features) / FARTHEST)
            by = motion if one_step is None else torch.where(one_step[:, None], motion, motion.detach())
            moved = with_floor(over_space(shift(last_map, by)))
            logits = self.log_sharpness.exp() * moved.log().flatten(1) + self.logits(features)
            expected = logits.softmax(dim=-1).unflatten(1, (self.grid, self.grid))
        return TopDown(with_floor(expected), motion)
