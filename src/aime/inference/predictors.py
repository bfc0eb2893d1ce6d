"""All that a model computes of clips for their scores; each clip is encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from aime.data import Clips
from aime.primitives.pixels import to_unit
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


class ClipPredictor:
    """What an evaluation asks of a model. Missing actions are the null action, those of the future too."""

    def __init__(self, model: AIME) -> None:
        """Ask a model in eval mode."""
        self._model = model
        self.config, self.device = model.config, model.device
        self.baseline_image, self.state_scale = model.baseline_image, model.state_scale

    def outputs(self, clips: Clips, seeds: Sequence[int], context: int, samples: int) -> ClipOutputs:
        """Run over B clips on the model's device, without padding.

        Args:
            clips: of more than `context` frames.
            seeds: one a clip, of its samples.
            context: frames that the predictions see, 1 or more.
            samples: sampled futures of each clip, 1 or more.
        """
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
