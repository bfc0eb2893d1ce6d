"""The typed outputs of the world model, which objectives, inference and agents read."""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils._pytree import tree_map

from aime.attention.bottom_up import BottomUp
from aime.attention.maps import over_pixels
from aime.attention.schema import Attention
from aime.attention.top_down import TopDown
from aime.data.clips import Targets
from aime.dynamics.prior import DirichletProcessMixture
from aime.dynamics.states import Carry, Track
from aime.perception.perceiver import Percept
from aime.perception.tokenizer import Tokens
from aime.primitives.distributions import DiagonalGaussian
from aime.primitives.transformer import TimeCache


class LatentClips(NamedTuple):
    """Clips as the belief reads them, without their frames."""

    latents: Float[Tensor, "B T latent"]
    """z_t: samples of the posterior in training."""
    contexts: Float[Tensor, "B T context"]
    actions: Float[Tensor, "B T A"]
    """As the belief reads them: missing ones are the learned null action."""
    targets: Targets

    @property
    def valid(self) -> Bool[Tensor, "B T"]:
        """False on padding."""
        return self.targets.valid

    def join(self, others: LatentClips) -> LatentClips:
        """These clips and others of the same length, in one batch."""
        return tree_map(lambda *pair: torch.cat(pair), self, others)


class Sight(NamedTuple):
    """What is computed of B videos of T frames before any latent or belief."""

    tokens: Tokens
    pyramid: tuple[Tensor, ...]
    """The encoder's features of the B·T frames at 1/2, 1/4 and 1/8 of the frame."""
    seen: BottomUp
    """Slots and bottom-up maps of the B·T frames."""
    percept: Percept
    """Its contexts have seen the states of their frames, where the model observes any."""
    tokenizer_past: tuple[Tensor, ...]
    """Features that the tokenizer needs with the frames that follow."""
    perceiver_cache: TimeCache | None
    """The Perceiver's cache for the frames that follow, if one was given."""


class Filtered(NamedTuple):
    """Features, latents and beliefs of B videos of T frames, without reconstructions."""

    sight: Sight
    posterior: DiagonalGaussian
    """q(z_t | x_t, c_t)."""
    track: Track

    @property
    def maps(self) -> Float[Tensor, "B T h w"]:
        """U_t, the bottom-up maps."""
        return rearrange(self.sight.seen.map, "(b t) h w -> b t h w", b=self.track.latents.shape[0])


class SequenceOutput(NamedTuple):
    """All that one pass over `[B,T]` frames computes; nothing at t depends on a later frame."""

    reconstructions: Float[Tensor, "B T 3 H W"]
    """Mean of p(x_t | z_t, A_t); in [0, 1] in eval mode, unclipped in training mode."""
    posterior: DiagonalGaussian
    """q(z_t | x_t, c_t)."""
    track: Track
    """Latents, beliefs and priors."""
    contexts: Float[Tensor, "B T context"]
    """c_t, from frames 1..t."""
    tokens: Int[Tensor, "B T h w"]
    """VQ indices in 0..codes-1."""
    commitment: Float[Tensor, "B T"]
    """Mean squared distance of the tokenizer's vectors from their codes, per dimension."""
    perceiver_latents: Float[Tensor, "B T N width"]
    codes: Float[Tensor, "B T code h w"]
    attention: Attention
    """All maps on the attention grid: A_t, U_t, P_t, the slots'."""

    @property
    def frame_attention(self) -> Float[Tensor, "B T H W"]:
        """A_t over the pixels of the frames, sums to 1."""
        return over_pixels(self.attention.fused)

    @property
    def latents(self) -> Float[Tensor, "B T latent"]:
        """z_t: a sample of the posterior in training mode, its mean in eval mode."""
        return self.track.latents

    @property
    def prior(self) -> DirichletProcessMixture:
        """p(z_t | h_{t-1}, z_{t-1}, z_{t-2}, expected context)."""
        return self.track.prior

    @property
    def beliefs(self) -> Float[Tensor, "B T belief"]:
        """h_{t-1}, the belief that enters step t."""
        return self.track.beliefs

    def clips(self, targets: Targets) -> LatentClips:
        """The latents, contexts and actions of this pass, without gradient but for the null action's."""
        return LatentClips(self.latents.detach(), self.contexts.detach(), self.track.actions, targets)


class BeliefState(NamedTuple):
    """Everything carried between the frames of B videos that are observed step by step."""

    carry: Carry
    last_map: Float[Tensor, "B h w"]
    """U_t where the frame was seen, P_t where it was imagined."""
    fresh: Bool[Tensor, " B"]
    """True where no frame has been seen yet, so that the belief is still h_0."""
    tokenizer_past: tuple[Tensor, ...]
    perceiver_cache: TimeCache


class Observation(NamedTuple):
    """What is inferred from one observed frame."""

    latent: Float[Tensor, "B latent"]
    """z_t, the posterior's mean."""
    posterior: DiagonalGaussian
    prior: DirichletProcessMixture
    """p(z_t) before the frame was seen."""
    context: Float[Tensor, "B context"]
    tokens: Int[Tensor, "B h w"]
    attention: Float[Tensor, "B h w"]
    """A_t, sums to 1 over space."""
    seen: BottomUp
    """U_t and the slots."""
    expected: TopDown
    """P_t and the motion towards it."""
    state: Float[Tensor, "B S"] | None = None
    """Predicted state of the robot or simulator, in its own units; None where none is observed."""

    @property
    def frame_attention(self) -> Float[Tensor, "B H W"]:
        """A_t over the pixels of the frame, sums to 1."""
        return over_pixels(self.attention)


class Imagined(NamedTuple):
    """One imagined step."""

    latent: Float[Tensor, "B latent"]
    component: Int[Tensor, " B"]
    prior: DirichletProcessMixture
    expected: TopDown
    """P_t, used in place of A_t where no frame is seen, and the motion towards it."""
    state: Float[Tensor, "B S"] | None = None
    """As in `Observation`."""

    @property
    def frame_attention(self) -> Float[Tensor, "B H W"]:
        """P_t over the pixels of the frame, sums to 1."""
        return over_pixels(self.expected.map)


class FuturePrediction(NamedTuple):
    """Predicted frames after a context, `F` steps; with `samples=S` every field has an axis S after B."""

    frames: Float[Tensor, "B *S F 3 H W"]
    """In [0, 1]."""
    latents: Float[Tensor, "B *S F latent"]
    mixture_weights: Float[Tensor, "B *S F K"]
    components: Int[Tensor, "B *S F"]
    attention: Float[Tensor, "B *S F h w"]
    """P_t, each from the one before: the maps that the frames were decoded with."""
    actions: Float[Tensor, "B *S F A"]
    """The action before each frame: those given, then those of the action schema."""
    states: Float[Tensor, "B *S F W"] | None = None
    """The robot's or simulator's state, W numbers in its own units; None where the model observes none."""

    @property
    def frame_attention(self) -> Float[Tensor, "B *S F H W"]:
        """P_t over the pixels of the frames, sums to 1."""
        return over_pixels(self.attention)
