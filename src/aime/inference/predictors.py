"""All that a model computes of clips for their scores; each clip is encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from aime.data import Clips
from aime.primitives.pixels import to_unit
from aime.primitives.standardise import Standardise
from aime.world_model.config import ModelConfig
from aime.world_model.model import AIME
from aime.world_model.outputs import FuturePrediction, SequenceOutput
from aime.world_model.prediction import predict_from
from aime.world_model.surprise import frame_bound, latent_surprise

BOUND_SAMPLES = 8
"""Samples of the bound on -log p(x)."""


class ClipOutputs(NamedTuple):
    """Of B clips of T frames, of which the last F are predicted."""

    sequence: SequenceOutput
    """Of all T frames, each of them seen."""
    likeliest: FuturePrediction
    """The single most likely future."""
    sampled: FuturePrediction
    latent_surprise: Float[Tensor, "B T"]
    frame_bound: Float[Tensor, "B T"]
    """In nats."""


class ClipPredictor(Protocol):
    """What an evaluation asks of a model; `ModelOutputs` asks it of an `AIME`."""

    @property
    def config(self) -> ModelConfig:
        """The sizes of frames, actions and codebook."""

    @property
    def device(self) -> torch.device:
        """Where clips must be."""

    @property
    def baseline_image(self) -> Float[Tensor, "3 H W"]:
        """The training set's mean frame, in [0, 1]."""

    @property
    def state_scale(self) -> Standardise | None:
        """See `AIME.state_scale`."""

    def outputs(self, clips: Clips, seeds: Sequence[int], context: int, samples: int) -> ClipOutputs:
        """Run over B clips on `device`, without padding.

        Args:
            clips: of more than `context` frames.
            seeds: one a clip, of its samples.
            context: frames that the predictions see, 1 or more.
            samples: sampled futures of each clip, 1 or more.
        """


class ModelOutputs:
    """The outputs of an `AIME` in eval mode; missing actions are the null action, those of the future too."""

    def __init__(self, model: AIME) -> None:
        self._model = model
        self.config, self.device = model.config, model.device
        self.baseline_image, self.state_scale = model.baseline_image, model.state_scale

    def outputs(self, clips: Clips, seeds: Sequence[int], context: int, samples: int) -> ClipOutputs:
        """See `ClipPredictor`."""
        model = self._model
        sequence = model.forward_sequence(clips.frames, clips.actions, clips.action_valid, clips.states)
        track, maps = sequence.track, sequence.attention.bottom_up
        frames = to_unit(clips.frames)
        start, last_map = model.dynamics.states_at(track, context - 1), maps[:, context - 1]
        actions = track.actions[:, context - 1 : -1]
        return ClipOutputs(
            sequence=sequence,
            likeliest=predict_from(model, start, last_map, actions),
            sampled=predict_from(model, start, last_map, actions, samples, seeds),
            latent_surprise=latent_surprise(track),
            frame_bound=frame_bound(model, frames, sequence.posterior, track, maps, BOUND_SAMPLES, seeds),
        )
