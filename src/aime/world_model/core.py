"""The core of the world model: its parts, joined, and what they compute of inputs that are known to be valid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from aime.attention.kinds import ATTENTIONS
from aime.data.action_scale import ActionScale
from aime.dynamics.contexts import make_context_head
from aime.dynamics.heads.control import Control
from aime.dynamics.heads.state import StateHead
from aime.dynamics.latent_dynamics import LatentDynamics
from aime.dynamics.priors import PRIORS
from aime.dynamics.recurrences import RECURRENCES
from aime.dynamics.states import Widths
from aime.perception.kinds import PERCEIVERS, TOKENIZERS
from aime.perception.state_reader import StateReader
from aime.primitives.distributions import DiagonalGaussian
from aime.primitives.draws import hide_gaps
from aime.primitives.standardise import Standardise
from aime.representation.kinds import DECODERS, ENCODERS
from aime.world_model import input_validation
from aime.world_model.config import ModelConfig
from aime.world_model.outputs import BeliefState, Filtered, SequenceOutput, Sight

Frames = UInt8[Tensor, "B T 3 H W"] | Float[Tensor, "B T 3 H W"] | UInt8[np.ndarray, "B T H W 3"]
"""Of any layout that `AIME.prepare` takes."""
Actions = Float[Tensor, "B T A"] | Float[np.ndarray, "B T A"]
States = Float[Tensor, "B T S"] | Float[np.ndarray, "B T S"]


class WorldModel(nn.Module):
    """The parts of the model, and what they compute of inputs whose numbers are not checked; see `AIME`."""

    mean_image: Tensor
    """`[3,H,W]` in [0, 1], the mean frame of the data that the model was first trained on: frames are centred on it.
    Fine-tuning keeps it."""
    baseline_image: Tensor
    """`[3,H,W]` in [0, 1], the mean frame of the data that the model was last trained on: a baseline of evaluations."""
    stand_ins: ClassVar[Mapping[str, str]] = {"baseline_image": "mean_image"}
    """The tensors that weights of earlier versions lack, and those that stand for them."""
    unknown: ClassVar[Mapping[str, int]] = {"dynamics.control.rewards_seen": -1}
    """Counts that weights of earlier versions lack, and what says so."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.action_scale: ActionScale | None = None
        """The ranges of actions in the units of the training data, where they are known."""
        size, state, tokens = config.image_size, config.state, config.tokenizer
        latent, context, action, belief = widths = Widths(
            config.latent, config.context_width, config.action_width, config.belief
        )
        self.tokenizer = TOKENIZERS[tokens.kind](tokens)
        self.perceiver = PERCEIVERS[config.perceiver.kind](
            config.perceiver, tokens.codes, tokens.code_width, size // 8, config.context
        )
        self.encoder = ENCODERS[config.encoder.kind](config.encoder, size, context, latent)
        # made before attention and decoder, so that a seed gives the same weights as in earlier versions
        followed = (
            PRIORS[config.prior.kind](config.prior, belief, context, latent),
            RECURRENCES[config.dynamics.kind](2 * latent + context + action, belief),
            make_context_head(belief, 0, config.expected_hidden, context),
            make_context_head(belief, latent, config.expected_hidden, context),
        )
        self.attention = ATTENTIONS[config.attention.kind](
            config.attention, self.encoder.channels, belief, latent, config.attention_grid
        )
        self.decoder = DECODERS[config.decoder.kind](config.decoder, size, latent)
        control = None if config.control.kind == "none" else Control(config.control, belief, latent, action)
        self.state_reader = StateReader(state, context) if state.width and context else None
        bounds = state.min_std, state.max_std
        head = StateHead(belief, latent, state.hidden, state.width, bounds) if state.width else None
        self.dynamics = LatentDynamics(*followed, control, head, widths, config.context_dropout)
        self.null_action = nn.Parameter(torch.zeros(action))
        self.register_buffer("mean_image", torch.full((3, size, size), 0.5))
        self.register_buffer("baseline_image", torch.full((3, size, size), 0.5))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.null_action.device

    @property
    def state_scale(self) -> Standardise | None:
        """The units that states are read and predicted in; None where the model observes none."""
        return None if self.dynamics.state_head is None else self.dynamics.state_head.scale

    def run_sequence(
        self,
        frames: UInt8[Tensor, "B T 3 H W"] | Float[Tensor, "B T 3 H W"],
        actions: Float[Tensor, "B T A"] | None = None,
        action_valid: Bool[Tensor, "B T"] | None = None,
        states: Float[Tensor, "B T S"] | None = None,
        valid: Bool[Tensor, "B T"] | None = None,
    ) -> SequenceOutput:
        """`forward_sequence` that checks shapes and no numbers. The codebook does not learn from frames not `valid`."""
        seen = self.filter_sequence(frames, actions, action_valid, states, valid)
        sight, track = seen.sight, seen.track
        attention = self.attention(sight.seen, track.beliefs, track.latents)
        reconstructions = self.draw(track.latents.flatten(0, 1), attention.shown.flatten(0, 1))
        return SequenceOutput(
            reconstructions=rearrange(reconstructions, "(b t) c h w -> b t c h w", b=track.latents.shape[0]),
            posterior=seen.posterior,
            track=track,
            contexts=sight.percept.contexts.to(track.latents.dtype),
            tokens=sight.tokens.indices,
            commitment=sight.tokens.commitment,
            perceiver_latents=sight.percept.latents,
            codes=sight.tokens.codes,
            attention=attention,
        )

    def filter_sequence(
        self,
        frames: UInt8[Tensor, "B T 3 H W"] | Float[Tensor, "B T 3 H W"],
        actions: Float[Tensor, "B T A"] | None = None,
        action_valid: Bool[Tensor, "B T"] | None = None,
        states: Float[Tensor, "B T S"] | None = None,
        valid: Bool[Tensor, "B T"] | None = None,
        *,
        entering: BeliefState | None = None,
    ) -> Filtered:
        """Latents and beliefs of `run_sequence`, without its prior maps and frames.

        With `entering`, the state that enters the first frame, the videos go on; without it they begin.
        """
        sight = self.perceive(frames, states, valid, entering)
        actions = input_validation.admit_actions(
            actions, action_valid, sight.percept.contexts.shape[:2], self.null_action
        )
        posterior = self.infer(sight)
        latents = posterior.rsample() if self.training else posterior.mean
        begun = (None, None) if entering is None else (entering.carry, entering.fresh)
        return Filtered(sight, posterior, self.dynamics.scan(latents, sight.percept.contexts, actions, *begun))

    def perceive(
        self,
        frames: UInt8[Tensor, "B T 3 H W"] | Float[Tensor, "B T 3 H W"],
        states: Float[Tensor, "B T S"] | None = None,
        valid: Bool[Tensor, "B T"] | None = None,
        entering: BeliefState | None = None,
    ) -> Sight:
        """What is computed of frames and states before any latent or belief: tokens, features, maps and contexts."""
        past, cache = (None, None) if entering is None else (entering.tokenizer_past, entering.perceiver_cache)
        centred = self.centre(frames)
        tokens, past = self.tokenizer(centred, past, valid)
        pyramid = self.encoder.pyramid(centred.flatten(0, 1))
        # no gradient to the encoder: the losses of attention would pull its features to what slots easily hold
        seen = self.attention.look(tuple(level.detach() for level in pyramid))
        percept, cache = self.perceiver(tokens.codes, seen.map.detach().unflatten(0, centred.shape[:2]), cache)
        contexts = self.read_states(percept.contexts, states)
        return Sight(tokens, pyramid, seen, percept._replace(contexts=contexts), past, cache)

    def read_states(
        self, contexts: Float[Tensor, "B T context"], states: Float[Tensor, "B T S"] | None
    ) -> Float[Tensor, "B T context"]:
        """Contexts that have seen the states of their own frames; in training mode some states are hidden."""
        like = contexts if self.state_scale is None else self.state_scale.mean
        states = input_validation.admit_states(states, contexts.shape[:-1], self.config, like)
        if self.state_reader is None or self.state_scale is None:
            return contexts
        if states is None:
            return contexts + self.state_reader.unknown.to(contexts.dtype)
        standardised = self.state_scale(states)
        withheld = self.config.state.withheld
        if self.training and withheld > 0:
            standardised = hide_gaps(standardised, withheld)
        return contexts + self.state_reader(standardised).to(contexts.dtype)

    def infer(self, sight: Sight) -> DiagonalGaussian:
        """q(z_t | x_t, c_t) of all frames, `[B,T,latent]`."""
        contexts = sight.percept.contexts
        return self.encoder(sight.pyramid, contexts.flatten(0, 1)).unflatten(contexts.shape[0])

    def draw(self, latents: Float[Tensor, "N latent"], attention: Float[Tensor, "N h w"]) -> Float[Tensor, "N 3 H W"]:
        """`decode` without checks."""
        return self.restore(self.decoder(latents, attention))

    def redraw(self, codes: Float[Tensor, "B T code h w"]) -> Float[Tensor, "B T 3 H W"]:
        """The tokenizer's own frames from code vectors, clipped to [0, 1] in eval mode."""
        return self.restore(self.tokenizer.reconstruct(codes))

    def centre(self, frames: Frames) -> Float[Tensor, "B T 3 H W"]:
        """Frames of the model's shape as floats less the mean frame, in [-1, 1]; ranges are not checked.

        Without this the latents of different frames start out nearly equal where most of a frame is background, and
        some runs never learn to tell them apart.
        """
        return input_validation.admit_frames(frames, self.config, self.null_action) - _innermost(self.mean_image)

    def restore(self, centred: Float[Tensor, "*N 3 H W"]) -> Float[Tensor, "*N 3 H W"]:
        """Centred frames with the mean frame added back, clipped to [0, 1] in eval mode."""
        frames = centred.to(self.mean_image.dtype) + _innermost(self.mean_image)
        return frames if self.training else frames.clamp(0, 1)


def part_of(name: str) -> str:
    """The part of the model that a parameter belongs to; the parts of the latent dynamics count as parts."""
    whole, _, rest = name.partition(".")
    return rest.partition(".")[0] if whole == "dynamics" else whole


def _innermost(image: Float[Tensor, "3 H W"]) -> Float[Tensor, "3 H W"]:
    # the memory layout of the frames it is added to
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
