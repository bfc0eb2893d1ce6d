"""Named sizes: `tiny` and `fast` train on two CPU cores in minutes, `base` on a GPU in hours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from aime.attention.schema import AttentionConfig
from aime.dynamics.heads.config import ControlConfig
from aime.dynamics.prior import PriorConfig
from aime.perception.perceiver import PerceiverConfig
from aime.perception.tokenizer import TokenizerConfig
from aime.representation.decoder import DecoderConfig
from aime.representation.encoder import EncoderConfig
from aime.world_model.config import ModelConfig


def tiny(action_width: int, image_size: int = 64) -> ModelConfig:
    """24 channels, 256 codes x 64, 32 Perceiver latents x 64, context 64, belief 256, 15 components, 4 slots."""
    return ModelConfig(
        action_width=action_width,
        image_size=image_size,
        context=64,
        belief=256,
        tokenizer=TokenizerConfig(channels=24, codes=256, code_width=64),
        perceiver=PerceiverConfig(latents=32, width=64),
        encoder=EncoderConfig(channels=24),
        prior=PriorConfig(),
        attention=AttentionConfig(slots=4, width=32),
        decoder=DecoderConfig(channels=24),
        control=ControlConfig(hidden=128),
    )


def base(action_width: int, image_size: int = 64) -> ModelConfig:
    """64 channels, 1024 codes x 256, 128 Perceiver latents x 256, context 256, belief 512, 15 components, 5 slots."""
    return ModelConfig(
        action_width=action_width,
        image_size=image_size,
        tokenizer=TokenizerConfig(cells=2),
        perceiver=PerceiverConfig(layers=2),
        encoder=EncoderConfig(cells=2),
        decoder=DecoderConfig(cells=2),
    )


def fast(action_width: int, image_size: int = 64) -> ModelConfig:
    """`tiny` without its attention schema; training with it leaves out the adversary and RGB, too."""
    return replace(tiny(action_width, image_size), attention=AttentionConfig(kind="uniform"))


PRESETS: dict[str, Callable[[int, int], ModelConfig]] = {"tiny": tiny, "base": base, "fast": fast}
"""Each preset's function of (action_width, image_size)."""
