"""The hidden layer of everything that reads a belief, and the scale of the latent steps beside it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

STEP_SCALE = 0.2
"""Steps of a latent from frame to frame are read and predicted in units of this: they are a fraction of the latent's
spread, and outputs of order one would drown them in the noise of the optimizer."""


class BeliefMLP(nn.Module):
    """SiLU(LayerNorm(W [LayerNorm(h), others])), in training with dropout after it, and perhaps residual layers.

    The belief is normalised first: an LSTM's outputs are small at the start, and would drown in the other inputs.
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
        """Features `[...,hidden]` of a belief and whatever is read beside it."""
        return self.hidden(self.join(belief, *others))

    def join(
        self, belief: Float[Tensor, "... belief"], *others: Float[Tensor, "... width"]
    ) -> Float[Tensor, "... inputs"]:
        """What the hidden layer reads: the normalised belief, and the others as they are."""
        return torch.cat([self.norm(belief), *others], dim=-1)


class ResidualLayer(nn.Module):
    """x + W₂ SiLU(W₁ LayerNorm(x)); the identity at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, features: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        """Features `[...,width]`."""
        return features + self.outer(F.silu(self.inner(self.norm(features))))
