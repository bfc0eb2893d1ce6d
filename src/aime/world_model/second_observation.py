"""The state as a second observation: what it adds to the contexts, and what is predicted of it."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from aime.perception.state_reader import StateReader
from aime.primitives.distributions import DiagonalGaussian
from aime.primitives.standardise import Standardise
from aime.representation.state_head import StateHead
from aime.world_model import input_validation
from aime.world_model.config import ModelConfig
from aime.world_model.imagination import random_spans


class SecondObservation(nn.Module):
    """Reads the state s_t into c_t, and predicts it from (h_{t-1}, z_t); S numbers, in their own units outside of here.

    A model without a context predicts the state and reads none.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, state = config, config.state
        self.scale = Standardise(state.width)
        self.reader = StateReader(state, config.context_width) if config.context_width else None
        bounds = state.min_std, state.max_std
        self.head = StateHead(config.belief, config.latent, state.hidden, state.width, bounds)

    def add(
        self, contexts: Float[Tensor, "*N context"], states: Float[Tensor, "*N S"] | None
    ) -> Float[Tensor, "*N context"]:
        """Contexts that have seen the states of their own frames; None, or NaN, where nothing is known of them.

        In training mode the states `[B,T,S]` of some clips are hidden.

        Raises:
            AimeError: if the states do not have the model's shape.
        """
        states = input_validation.admit_states(states, contexts.shape[:-1], self.config, self.scale.mean)
        if self.reader is None:
            return contexts
        if states is None:
            return contexts + self.reader.unknown.to(contexts.dtype)
        standardised = self.scale(states)
        withheld = self.config.state.withheld
        if self.training and withheld > 0 and standardised.ndim == 3:
            hidden = hidden_states(standardised.shape[0], standardised.shape[1], withheld, standardised.device)
            standardised = standardised.masked_fill(hidden[..., None], torch.nan)
        return contexts + self.reader(standardised).to(contexts.dtype)

    def predict(
        self,
        belief: Float[Tensor, "... belief"],
        latent: Float[Tensor, "... latent"],
        step: Float[Tensor, "... latent"],
    ) -> Float[Tensor, "... S"]:
        """The mean of p(s_t | h_{t-1}, z_t), in the state's own units."""
        return self.scale.restore(self.distribution(belief, latent, step).mean)

    def distribution(
        self,
        belief: Float[Tensor, "... belief"],
        latent: Float[Tensor, "... latent"],
        step: Float[Tensor, "... latent"],
    ) -> DiagonalGaussian:
        """p(s_t | h_{t-1}, z_t, z_t - z_{t-1}) of the standardised state."""
        return self.head(belief, latent, step)


class FramesAlone(nn.Module):
    """No second observation: no parameter, no computation, and a refusal of states."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, self.scale = config, None

    def add(
        self, contexts: Float[Tensor, "*N context"], states: Float[Tensor, "*N S"] | None
    ) -> Float[Tensor, "*N context"]:
        """The contexts as they are.

        Raises:
            AimeError: if there are states.
        """
        input_validation.admit_states(states, contexts.shape[:-1], self.config, contexts)
        return contexts

    def predict(
        self,
        belief: Float[Tensor, "... belief"],
        latent: Float[Tensor, "... latent"],
        step: Float[Tensor, "... latent"],
    ) -> None:
        """Nothing."""


def hidden_states(batch: int, length: int, share: float, device: torch.device) -> Bool[Tensor, "B T"]:
    """True throughout a half of a `share` of the rows, and on a random span of the other half."""
    throughout = torch.rand(batch, 1, device=device) < share / 2
    return throughout | random_spans(batch, length, share / 2, device)
