"""The core of the world model: its parts, joined, and what they compute of inputs that are known to be valid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from aime.data.action_scale import ActionScale
from aime.dynamics.belief import LSTMBelief
from aime.perception.tokenizer import Tokenizer
from aime.primitives.distributions import DiagonalGaussian
from aime.primitives.standardise import Standardise
from aime.representation.decoder import Decoder
from aime.representation.encoder import Encoder
from aime.representation.prior import DirichletProcessMixture
from aime.world_model import imagination, input_validation, parts
from aime.world_model.config import ModelConfig
from aime.world_model.outputs import (
    DreamState,
    SequenceOutput,
    Sight,
    Track,
)

Frames = UInt8[Tensor, "B T 3 H W"] | Float[Tensor, "B T 3 H W"] | UInt8[np.ndarray, "B T H W 3"]
"""Of any layout that `AIME.prepare` takes."""
Actions = Float[Tensor, "B T A"] | Float[np.ndarray, "B T A"]
States = Float[Tensor, "B T S"] | Float[np.ndarray, "B T S"]


class WorldModel(nn.Module):
    """The parts of the model, and what they compute of inputs whose numbers are not checked; see `AIME`."""

    mean_image: Tensor
    """`[3,H,W]` in [0, 1]; what the pillars see is centred on it. The mean frame of the data that the model learned
    from first: fine-tuning keeps it, since all that the model sees and draws is relative to it."""
    baseline_image: Tensor
    """`[3,H,W]` in [0, 1], the mean frame of the data that the model learned from last: a baseline, which the model
    does not read. Weights of earlier versions have `mean_image` in its place."""
    stand_ins: ClassVar[Mapping[str, str]] = {"baseline_image": "mean_image"}
    """The tensors that weights of earlier versions lack, and those that stand for them."""
    unknown: ClassVar[Mapping[str, int]] = {"control.rewards_seen": -1}
    """Counts that weights of earlier versions lack, and what says so."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.action_scale: ActionScale | None = None
        """What actions of -1 and 1 are in the units of the data that the model was trained on, where that is known."""
        self.tokenizer = Tokenizer(config.tokenizer)
        self.perceiver = parts.make_perceiver(config)
        self.encoder = Encoder(config.encoder, config.image_size, config.context_width, config.latent)
        self.prior = parts.make_prior(config)
        self.dynamics = LSTMBelief(config.latent, config.context_width, config.action_width, config.belief)
        self.expect_context = parts.make_context_head(config, reads_latent=False)
        self.imply_context = parts.make_context_head(config, reads_latent=True)
        self.attention = parts.make_attention(config, self.encoder.channels)
        self.decoder = Decoder(config.decoder, config.image_size, config.latent)
        self.control = parts.make_control(config)
        self.second_observation = parts.make_second_observation(config)
        self.initial_latent = nn.Parameter(torch.zeros(config.latent))
        self.null_action = nn.Parameter(torch.zeros(config.action_width))
        self.register_buffer("mean_image", torch.full((3, config.image_size, config.image_size), 0.5))
        self.register_buffer("baseline_image", torch.full((3, config.image_size, config.image_size), 0.5))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.null_action.device

    @property
    def state_scale(self) -> Standardise | None:
        """The units that states are read and predicted in; None where the model observes none."""
        return self.second_observation.scale

    def run_sequence(
        self,
        frames: UInt8[Tensor, "B T 3 H W"] | Float[Tensor, "B T 3 H W"],
        actions: Float[Tensor, "B T A"] | None = None,
        action_valid: Bool[Tensor, "B T"] | None = None,
        states: Float[Tensor, "B T S"] | None = None,
        valid: Bool[Tensor, "B T"] | None = None,
    ) -> SequenceOutput:
        """`forward_sequence` for data that is known to be in range: it looks at shapes, not at numbers.

        In training mode the codebook learns nothing of frames that are not `valid`, which are padding.
        """
        centred = self.centre(frames)
        batch = centred.shape[0]
        actions = input_validation.admit_actions(actions, action_valid, centred.shape[:2], self.null_action)
        sight = self.perceive(centred, states, valid)
        posterior = self.infer(sight)
        latents = posterior.rsample() if self.training else posterior.mean
        track = self.follow(latents, sight.percept.contexts, actions)
        attention = self.attention(sight.seen, track.beliefs, latents)
        reconstructions = self.draw(latents.flatten(0, 1), attention.shown.flatten(0, 1))
        return SequenceOutput(
            reconstructions=rearrange(reconstructions, "(b t) c h w -> b t c h w", b=batch),
            posterior=posterior,
            track=track,
            contexts=sight.percept.contexts.to(latents.dtype),
            tokens=sight.tokens.indices,
            commitment=sight.tokens.commitment,
            perceiver_latents=sight.percept.latents,
            codes=sight.tokens.codes,
            attention=attention,
        )

    def perceive(
        self,
        centred: Float[Tensor, "B T 3 H W"],
        states: Float[Tensor, "B T S"] | None = None,
        valid: Bool[Tensor, "B T"] | None = None,
    ) -> Sight:
        """What centred frames show, before any latent or belief: tokens, features, what stands out, and contexts.

        The contexts have seen the states, too; `valid` as in `run_sequence`.

        Raises:
            AimeError: if the states do not have the model's shape.
        """
        tokens, _ = self.tokenizer(centred, valid=valid)
        pyramid = self.encoder.pyramid(centred.flatten(0, 1))
        # attention reads what the encoder has learned to see and does not change it: its losses would pull features to
        # what slots easily hold
        seen = self.attention.look(tuple(level.detach() for level in pyramid))
        percept = self.perceiver(tokens.codes, seen.map.detach().unflatten(0, centred.shape[:2]))
        contexts = self.second_observation.add(percept.contexts, states)
        return Sight(tokens, pyramid, seen, percept._replace(contexts=contexts))

    def infer(self, sight: Sight) -> DiagonalGaussian:
        """q(z_t | x_t, c_t) of all frames, `[B,T,latent]`."""
        contexts = sight.percept.contexts
        return self.encoder(sight.pyramid, contexts.flatten(0, 1)).unflatten(contexts.shape[0])

    def follow(
        self,
        latents: Float[Tensor, "B T latent"],
        contexts: Float[Tensor, "B T context"],
        actions: Float[Tensor, "B T A"],
    ) -> Track:
        """Beliefs and priors along T latents, contexts and (admitted) actions: the part of a pass that sees no frame.

        In training mode the belief reads, on random spans, the implied context in place of the given one.
        """
        contexts = contexts.to(latents.dtype)
        steps = F.pad(latents[:, 1:] - latents[:, :-1], (0, 0, 1, 0))
        if self.training and self.config.context_dropout > 0 and self.config.context_width:
            with torch.no_grad():
                implied = self.imply_context(self.dynamics(latents, steps, contexts, actions), latents)
            batch, length = latents.shape[:2]
            dropped = imagination.random_spans(batch, length, self.config.context_dropout, latents.device)
            contexts = torch.where(dropped[..., None], implied, contexts)
        beliefs = self.dynamics(latents, steps, contexts, actions)
        implied = self.imply_context(beliefs, latents)
        expected = self.expect_context(beliefs)
        return Track(
            latents=latents,
            steps=steps,
            prior=self.prior(beliefs, *self._recent(latents, steps), expected),
            beliefs=beliefs,
            expected_contexts=expected,
            implied_contexts=implied,
            belief_contexts=contexts,
            actions=actions,
        )

    def draw(self, latents: Float[Tensor, "N latent"], attention: Float[Tensor, "N h w"]) -> Float[Tensor, "N 3 H W"]:
        """`decode` for latents and maps of the model's own: it looks at nothing."""
        return self.restore(self.decoder(latents, attention))

    def redraw(self, codes: Float[Tensor, "B T code h w"]) -> Float[Tensor, "B T 3 H W"]:
        """The tokenizer's own frames from code vectors, clipped to [0, 1] in eval mode."""
        return self.restore(self.tokenizer.reconstruct(codes))

    def centre(self, frames: Frames) -> Float[Tensor, "B T 3 H W"]:
        """Frames of the model's shape as floats less the mean frame, in [-1, 1]; their numbers are not looked at.

        Where most of a frame is background, what moves is all that is left: without this, latents of different frames
        start out nearly equal, and now and then a run never learns to tell them apart.

        Raises:
            AimeError: if the frames do not have the model's shape.
        """
        return input_validation.admit_frames(frames, self.config, self.null_action) - _innermost(self.mean_image)

    def restore(self, centred: Float[Tensor, "*N 3 H W"]) -> Float[Tensor, "*N 3 H W"]:
        """Centred frames with the mean frame added back, clipped to [0, 1] in eval mode."""
        frames = centred.to(self.mean_image.dtype) + _innermost(self.mean_image)
        return frames if self.training else frames.clamp(0, 1)

    def advance(
        self, state: DreamState, action: Float[Tensor, "N A"]
    ) -> tuple[Float[Tensor, "N belief"], Float[Tensor, "N belief"]]:
        """The belief and cell after (z_t, c_t, a_t)."""
        return self.dynamics.step(state.latent, state.step, state.context, action, state.belief, state.cell)

    def believe(
        self,
        belief: Float[Tensor, "... belief"],
        last_latent: Float[Tensor, "... latent"],
        last_step: Float[Tensor, "... latent"],
    ) -> DirichletProcessMixture:
        """p(z_t | h_{t-1}, z_{t-1}, z_{t-2}, expected context), the last step being z_{t-1} - z_{t-2}."""
        return self.prior(belief, last_latent, last_step, self.expect_context(belief))

    def arrive(
        self,
        belief: Float[Tensor, "N belief"],
        cell: Float[Tensor, "N belief"],
        latent: Float[Tensor, "N latent"],
        last_latent: Float[Tensor, "N latent"],
    ) -> DreamState:
        """The state in which z was imagined rather than seen: the context is the one that z implies."""
        return DreamState(belief, cell, latent, latent - last_latent, self.imply_context(belief, latent))

    def _recent(
        self, latents: Float[Tensor, "B T latent"], steps: Float[Tensor, "B T latent"]
    ) -> tuple[Float[Tensor, "B T latent"], Float[Tensor, "B T latent"]]:
        """Latent and step before each frame, without gradient."""
        # with one, the prior would pull each latent towards the next until none says anything
        first = repeat(self.initial_latent, "d -> b 1 d", b=latents.shape[0])
        return torch.cat([first, latents[:, :-1].detach()], dim=1), F.pad(steps[:, :-1].detach(), (0, 0, 1, 0))


def _innermost(image: Float[Tensor, "3 H W"]) -> Float[Tensor, "3 H W"]:
    # the memory layout of the frames it is added to
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
