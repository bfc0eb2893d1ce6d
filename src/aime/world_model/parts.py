"""The parts of a world model that come in several kinds, each as its config says."""

from __future__ import annotations

from typing import NamedTuple

from aime.attention.kinds import ATTENTIONS
from aime.attention.schema import AttentionPillar
from aime.dynamics.contexts import ContextHead, NoContextHead, make_context_head
from aime.dynamics.heads.control import Control
from aime.dynamics.heads.state import StateHead
from aime.dynamics.latent_dynamics import LatentDynamics
from aime.dynamics.priors import PRIORS, Prior
from aime.dynamics.recurrences import RECURRENCES
from aime.dynamics.recurrences.interface import Recurrence
from aime.dynamics.states import Widths
from aime.perception.kinds import PERCEIVERS
from aime.perception.perceiver import ContextMaker
from aime.perception.state_reader import StateReader
from aime.world_model.config import ModelConfig


def part_of(name: str) -> str:
    """The part of the model that the parameter of that name belongs to: those of the latent dynamics are parts, too."""
    whole, _, rest = name.partition(".")
    return rest.partition(".")[0] if whole == "dynamics" else whole


def make_perceiver(config: ModelConfig) -> ContextMaker:
    """What makes the tokens a context, or nothing in its place (`perceiver.kind`)."""
    codes, width = config.tokenizer.codes, config.tokenizer.code_width
    kind = PERCEIVERS[config.perceiver.kind]
    return kind(config.perceiver, codes, width, config.image_size // 8, config.context)


def make_prior(config: ModelConfig) -> Prior:
    """The mixture, or one Gaussian (`prior.kind`)."""
    return PRIORS[config.prior.kind](config.prior, config.belief, config.context_width, config.latent)


def make_attention(config: ModelConfig, channels: tuple[int, ...]) -> AttentionPillar:
    """The attention schema on a pyramid of so many channels a level, or uniform maps (`attention.kind`)."""
    kind = ATTENTIONS[config.attention.kind]
    return kind(config.attention, channels, config.belief, config.latent, config.attention_grid)


def make_control(config: ModelConfig) -> Control | None:
    """Reward, continuation and action schema, or None where they are switched off (`control.kind`)."""
    if config.control.kind == "none":
        return None
    return Control(config.control, config.belief, config.latent, config.action_width)


def make_state_reader(config: ModelConfig) -> StateReader | None:
    """What reads the state into the context; None without a state or without a context."""
    return StateReader(config.state, config.context_width) if config.state.width and config.context_width else None


class Belief(NamedTuple):
    """The parts of the dynamics that are made before attention and decoder: a seed gives the same weights as ever."""

    prior: Prior
    recurrence: Recurrence
    expect_context: ContextHead | NoContextHead
    imply_context: ContextHead | NoContextHead


def make_belief(config: ModelConfig) -> Belief:
    """Prior, recurrence (`dynamics.kind`), and the guesses at a context."""
    latent, context, hidden = config.latent, config.context_width, config.expected_hidden
    return Belief(
        make_prior(config),
        RECURRENCES[config.dynamics.kind](2 * latent + context + config.action_width, config.belief),
        make_context_head(config.belief, 0, hidden, context),
        make_context_head(config.belief, latent, hidden, context),
    )


def join_dynamics(config: ModelConfig, belief: Belief, control: Control | None) -> LatentDynamics:
    """The latent dynamics, with a state head where the model observes a state."""
    state, head = config.state, None
    if state.width:
        bounds = state.min_std, state.max_std
        head = StateHead(config.belief, config.latent, state.hidden, state.width, bounds)
    widths = Widths(config.latent, config.context_width, config.action_width, config.belief)
    return LatentDynamics(*belief, control, head, widths, config.context_dropout)
