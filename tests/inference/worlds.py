"""Worlds whose future is known, and predictors of which it is known how good they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from tests.models import SIZE, small_config
from torch import Tensor

from aime.data import Clips
from aime.dynamics.prior import DirichletProcessMixture
from aime.dynamics.states import Track
from aime.inference.predictors import ClipOutputs, ClipPredictor
from aime.primitives.distributions import DiagonalGaussian, GammaPosterior, GaussianMixture, Kumaraswamy
from aime.primitives.seeded_noise import Seeds, seeded_uniforms
from aime.world_model.config import ModelConfig
from aime.world_model.outputs import FuturePrediction, SequenceOutput

Knowledge = Literal["all", "mean image", "still", "uncertain"]

COMPONENTS = 4
NOISE = 0.1
HIERARCHICAL = 3 * 0.5772156649
"""Nats that the oracle's three sticks cost: each is uniform, of which the KL to Beta(1, α) is α - 1 - log α, and
E log α of Gamma(1, 1) is minus Euler's constant."""


def drifting_clips(count: int, length: int, seed: int = 0) -> Clips:
    """Noise pictures that move one pixel to the right at every step, and come back on the left."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(0, 256, (count, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    frames = torch.stack([start.roll(step, dims=-1) for step in range(length)], dim=1)
    true = torch.ones(count, length, dtype=torch.bool)
    zeros = torch.zeros(count, length)
    return Clips(frames, torch.zeros(count, length, 2), zeros, ~true, true, true, true, None)


class Oracle(ClipPredictor):
    """Predicts a drifting world by rule; `knowledge` says how much of the rule it has.

    "all": exactly. "mean image": shows the mean image. "still": repeats the last frame. "uncertain": the truth plus
    one Gaussian offset a future and pixel, which has standard deviation `NOISE`.
    """

    def __init__(self, knowledge: Knowledge = "all") -> None:
        self.knowledge = knowledge
        self.config: ModelConfig = small_config()
        self.device = torch.device("cpu")
        self.mean_image = self.baseline_image = torch.full((3, SIZE, SIZE), 0.5)
        self.state_scale = None
        self.longest_batch = 0

    def forward_sequence(
        self,
        frames: Tensor,
        actions: Tensor | None = None,
        action_valid: Tensor | None = None,
        states: Tensor | None = None,
    ) -> SequenceOutput:
        batch, length = frames.shape[:2]
        nothing = torch.zeros(batch, length, 1)
        weights = torch.tensor([0.5, 0.5, 0, 0]).log().expand(batch, length, COMPONENTS)
        mixture = GaussianMixture(weights, nothing[..., None], nothing[..., None])
        # codes 0, 1 and 2 in even use
        tokens = torch.arange(3).repeat(batch, length, 1)[..., None]
        zeros = torch.zeros(batch, length)
        sticks = Kumaraswamy(*(torch.zeros(batch, length, COMPONENTS - 1),) * 2)
        prior = DirichletProcessMixture(mixture, sticks, GammaPosterior(zeros, zeros))
        values = dict.fromkeys(SequenceOutput._fields, nothing) | {
            "reconstructions": self._lighten(frames),
            "posterior": DiagonalGaussian(nothing, nothing),
            "track": Track(**(dict.fromkeys(Track._fields, nothing) | {"prior": prior})),  # type: ignore[arg-type]
            "tokens": tokens,
        }
        return SequenceOutput(**values)  # type: ignore[arg-type]

    def predict_future(
        self,
        context_frames: Tensor,
        actions: Tensor,
        samples: int | None = None,
        seed: Seeds = 0,
        *,
        states: Tensor | None = None,
    ) -> FuturePrediction:
        self.longest_batch = max(self.longest_batch, context_frames.shape[0])
        horizon = actions.shape[1] - context_frames.shape[1]
        last = context_frames[:, -1].float() / (255 if context_frames.dtype == torch.uint8 else 1)
        drift = 0 if self.knowledge == "still" else 1
        frames = torch.stack([last.roll(drift * step, dims=-1) for step in range(1, horizon + 1)], dim=1)
        if self.knowledge == "mean image":
            frames = self.mean_image.expand_as(frames)
        if samples is not None:
            frames = frames[:, None].expand(-1, samples, -1, -1, -1, -1)
            if self.knowledge == "uncertain":
                frames = frames + NOISE * _normal(seed, frames.shape)
        steps = frames.shape[:-3]
        return FuturePrediction(
            frames=frames,
            latents=torch.zeros(*steps, 1),
            mixture_weights=torch.full((*steps, COMPONENTS), 1 / COMPONENTS),
            components=torch.zeros(steps, dtype=torch.int64),
            attention=torch.full((*steps, SIZE // 4, SIZE // 4), (4 / SIZE) ** 2),
            actions=torch.zeros(*steps, 1),
        )

    def outputs(self, clips: Clips, seeds: Sequence[int], context: int, samples: int) -> ClipOutputs:
        seen, surprise = clips.frames[:, :context], torch.arange(clips.frames.shape[1], dtype=torch.float32)
        surprise = surprise.expand(clips.frames.shape[:2])
        return ClipOutputs(
            self.forward_sequence(clips.frames),
            self.predict_future(seen, clips.actions),
            self.predict_future(seen, clips.actions, samples, seeds),
            surprise,
            surprise,
        )

    def _lighten(self, frames: Tensor) -> Tensor:
        # an error of 0.1 everywhere is 20 dB
        values = frames.float() / (255 if frames.dtype == torch.uint8 else 1)
        return values + 0.1


def _normal(seed: Seeds, shape: torch.Size) -> Tensor:
    batch, samples, horizon, *frame = shape
    noise = seeded_uniforms(seed, (batch, samples, horizon, math.prod(frame)), "future", torch.device("cpu"))
    return torch.special.ndtri(noise).reshape(shape)
