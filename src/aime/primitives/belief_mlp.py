"""Hidden layers of all heads on a belief, and the scale of latent steps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

STEP_SCALE = 0.2
"""Unit of latent differences between frames, as inputs and predictions: they are a fraction of the latent's spread."""


class BeliefMLP(nn.Module):
    """Dropout(SiLU(LayerNorm(W [LayerNorm(h), others]))), then optional residual layers.

    The belief is normalised because an LSTM's outputs are small at the start of training.
    """

    def __init__(self, belief: int, others: int, hidden: int, dropout: float = 0.0, residuals: int = 0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(belief)
        self.hidden = nn.Sequential(
            nn.Linear(belief + others, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Dropout(dropout),
            *(ResidualLayer(hidden) for _ in range(residuals)),
        )

    def forward(
        self, belief: Float[Tensor, "... belief"], *others: Float[Tensor, "... width"]
    ) -> Float[Tensor, "... hidden"]:
        """Features `[...,hidden]` of a belief and further inputs."""
        return self.hidden(self.join(belief, *others))

    def join(
        self, belief: Float[Tensor, "... belief"], *others: Float[Tensor, "... width"]
    ) -> Float[Tensor, "... inputs"]:
        """The hidden layer's input: the normalised belief and the other inputs."""
        return torch.cat([self.norm(belief), *others], dim=-1)


class ResidualLayer(nn.Module):
    """x + W₂ SiLU(W₁ LayerNorm(x)), initialised as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, features: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        """Map features `[...,width]` to the same shape."""
        return features + self.outer(F.silu(self.inner(self.norm(features))))
