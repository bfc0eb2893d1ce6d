"""The context guessed from the belief: expected before the frame, implied by the latent in imagination."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from aime.primitives.belief_mlp import BeliefMLP
from aime.primitives.boundary_layers import BoundaryLinear


class ContextHead(nn.Module):
    """A context `[...,context]` from a belief and, where it reads one, a latent."""

    def __init__(self, belief: int, latent: int, hidden: int, context: int) -> None:
        """A head; `latent` is 0 where it reads none."""
        super().__init__()
        self.readout = BeliefMLP(belief, latent, hidden)
        self.project = BoundaryLinear(hidden, context)

    def forward(
        self, beliefs: Float[Tensor, "... belief"], *latents: Float[Tensor, "... latent"]
    ) -> Float[Tensor, "... context"]:
        """The context `[...,context]`."""
        return self.project(self.readout(beliefs, *latents))


class NoContextHead(nn.Module):
    """The guess where there is no context: `[...,0]`, from no parameter."""

    def forward(
        self, beliefs: Float[Tensor, "... belief"], *latents: Float[Tensor, "... latent"]
    ) -> Float[Tensor, "... 0"]:
        """A context `[...,0]`."""
        return beliefs.new_zeros(*beliefs.shape[:-1], 0)


def make_context_head(belief: int, latent: int, hidden: int, context: int) -> ContextHead | NoContextHead:
    """A guess at a context of this width, which may be 0."""
    return ContextHead(belief, latent, hidden, context) if context else NoContextHead()
