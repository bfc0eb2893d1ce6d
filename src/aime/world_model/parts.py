"""The parts of a world model that come in several kinds, each as its config says, and the guesses at a context."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from aime.attention.schema import AttentionPillar, AttentionSchema
from aime.attention.uniform import UniformAttention
from aime.control.control import Control
from aime.perception.no_context import NoContext
from aime.perception.perceiver import CausalPerceiver
from aime.primitives.ends import EndLinear
from aime.primitives.readout import BeliefReadout
from aime.representation.prior import DirichletProcessPrior
from aime.representation.single_gaussian_prior import SingleGaussianPrior
from aime.world_model.config import ModelConfig
from aime.world_model.second_observation import FramesAlone, SecondObservation


def make_perceiver(config: ModelConfig) -> CausalPerceiver | NoContext:
    """What makes the tokens a context, or nothing in its place (`perceiver.kind`)."""
    if config.perceiver.kind == "none":
        return NoContext()
    codes, width = config.tokenizer.codes, config.tokenizer.code_width
    return CausalPerceiver(config.perceiver, codes, width, config.image_size // 8, config.context)


def make_prior(config: ModelConfig) -> DirichletProcessPrior | SingleGaussianPrior:
    """The mixture, or one Gaussian (`prior.kind`)."""
    kind = SingleGaussianPrior if config.prior.kind == "single_gaussian" else DirichletProcessPrior
    return kind(config.prior, config.belief, config.context_width, config.latent)


def make_attention(config: ModelConfig, channels: tuple[int, ...]) -> AttentionPillar:
    """The attention schema on a pyramid of so many channels a level, or uniform maps (`attention.kind`)."""
    grid = config.attention_grid
    if config.attention.kind == "uniform":
        return UniformAttention(grid)
    return AttentionSchema(config.attention, channels, config.belief, config.latent, grid)


def make_control(config: ModelConfig) -> Control | None:
    """Reward, continuation and action schema, or None where they are switched off (`control.kind`)."""
    if config.control.kind == "none":
        return None
    return Control(config.control, config.belief, config.latent, config.action_width)


def make_second_observation(config: ModelConfig) -> SecondObservation | FramesAlone:
    """What reads and predicts the state, or nothing in its place (`state.width`)."""
    return SecondObservation(config) if config.state.width else FramesAlone(config)


class ContextHead(nn.Module):
    """A context guessed from a belief, and from a latent beside it."""

    def __init__(self, config: ModelConfig, reads_latent: bool) -> None:
        super().__init__()
        self.readout = BeliefReadout(config.belief, config.latent if reads_latent else 0, config.expected_hidden)
        self.project = EndLinear(config.expected_hidden, config.context)

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


def make_context_head(config: ModelConfig, reads_latent: bool) -> ContextHead | NoContextHead:
    """A guess at the context, of width 0 where the model has none."""
    return ContextHead(config, reads_latent) if config.context_width else NoContextHead()
