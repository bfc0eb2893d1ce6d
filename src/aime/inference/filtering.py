"""Filtering: what a model infers about every frame of a clip from the frames up to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from aime.attention.kinds import ATTENTIONS
from aime.attention.maps import centre_of_mass
from aime.attention.schema import Attention
from aime.data import Clips
from aime.inference.dreams import to_numpy, to_pixels
from aime.world_model.config import ModelConfig
from aime.world_model.model import AIME

NO_ATTENTION = (
    "This model's attention is uniform: every part of a frame has the same weight, so there is no map to draw. "
    "A run trained without --model.attention.kind uniform has attention maps."
)


@dataclass(frozen=True)
class AttentionMaps:
    """The attention of a model on B clips of T frames, all of which it sees; maps sum to 1 over space.

    Positions and motions are (x, y) in cells of the attention grid, x to the right and y down, positions counted from
    the middle of the left upper cell.
    """

    fused: Float[np.ndarray, "B T h w"]
    """A_t."""
    bottom_up: Float[np.ndarray, "B T h w"]
    """U_t, computed from the frame."""
    prior: Float[np.ndarray, "B T h w"]
    """P_t, predicted before the frame is seen."""
    slot_maps: Float[np.ndarray, "B T S h w"]
    """The share of each cell that each slot takes; sums to 1 over the slots."""
    start: Float[np.ndarray, "B T 2"]
    """Centre of mass of U_{t-1}; of a learned map at the first frame."""
    expected: Float[np.ndarray, "B T 2"]
    """The motion that P_t predicts."""
    actual: Float[np.ndarray, "B T 2"]
    """The motion of the centre of mass from U_{t-1} to U_t."""


@dataclass(frozen=True)
class FilteredClips:
    """What a model infers about B clips of T frames."""

    reconstructions: UInt8[np.ndarray, "B T H W 3"]
    weights: Float[np.ndarray, "B T K"]
    """Mixture weights of the prior."""
    codes: Int[np.ndarray, " codes"]
    """How often each code was used."""
    attention: AttentionMaps | None
    """None where attention is uniform."""


def has_attention(config: ModelConfig) -> bool:
    """Whether there are attention maps to draw: not where attention is uniform."""
    return ATTENTIONS[config.attention.kind].attends


@torch.inference_mode()
def filter_clips(model: AIME, clips: Clips) -> FilteredClips:
    """Run a model over some clips and keep its reconstructions, mixture weights, codes and attention.

    Args:
        model: in eval mode.
        clips: without padding.
    """
    clips = clips.to(model.device)
    output = model.forward_sequence(clips.frames, clips.actions, clips.action_valid, clips.states)
    return FilteredClips(
        reconstructions=to_pixels(output.reconstructions),
        weights=to_numpy(output.prior.mixture.log_weights.exp()),
        codes=torch.bincount(output.tokens.flatten(), minlength=model.config.tokenizer.codes).cpu().numpy(),
        attention=attention_maps(output.attention) if has_attention(model.config) else None,
    )


def attention_maps(attention: Attention) -> AttentionMaps:
    """The maps of a pass as arrays, and how their centre of mass moves."""
    start = centre_of_mass(attention.last)
    return AttentionMaps(
        fused=to_numpy(attention.fused),
        bottom_up=to_numpy(attention.bottom_up),
        prior=to_numpy(attention.prior),
        slot_maps=to_numpy(attention.slot_maps),
        start=to_numpy(start),
        expected=to_numpy(attention.motion),
        actual=to_numpy(centre_of_mass(attention.bottom_up) - start),
    )
