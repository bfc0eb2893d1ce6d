"""Small models for tests: all parts, 32 x 32 pixels, few channels."""

from __future__ import annotations

import torch
from torch import Tensor

from aime.attention.schema import AttentionConfig
from aime.data.clips import Targets
from aime.dynamics.heads.config import ControlConfig
from aime.dynamics.prior import PriorConfig
from aime.perception.perceiver import PerceiverConfig
from aime.perception.tokenizer import TokenizerConfig
from aime.representation.decoder import DecoderConfig
from aime.representation.encoder import EncoderConfig
from aime.world_model.config import ModelConfig

SIZE = 32


def small_config(window: int = 3) -> ModelConfig:
    """A model of 2-number actions whose Perceiver looks back `window` frames."""
    return ModelConfig(
        action_width=2,
        image_size=SIZE,
        latent=6,
        context=8,
        belief=16,
        tokenizer=TokenizerConfig(channels=8, codes=12, code_width=8),
        perceiver=PerceiverConfig(latents=4, width=8, window=window),
        encoder=EncoderConfig(channels=8),
        prior=PriorConfig(components=4, hidden=16),
        attention=AttentionConfig(slots=3, width=8),
        decoder=DecoderConfig(channels=8),
        control=ControlConfig(hidden=16),
    )


def targets(valid: Tensor, states: Tensor | None = None) -> Targets:
    """All actions and rewards known wherever there is no padding, and the last frame of each clip an end."""
    rewards = torch.linspace(-1, 3, valid.shape[1]).expand(valid.shape)
    terminated = torch.zeros_like(valid)
    terminated[:, -1] = True
    none = torch.zeros(*valid.shape, 0)
    return Targets(valid, valid, rewards, valid, terminated, none if states is None else states)
