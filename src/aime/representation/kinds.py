"""The encoders and decoders: one file each, and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aime.representation.decoder import Decoder, DecoderConfig
from aime.representation.encoder import Encoder, EncoderConfig, ResidualEncoder

ENCODERS: Mapping[str, Callable[[EncoderConfig, int, int, int], Encoder]] = {"residual": ResidualEncoder}
"""By `EncoderConfig.kind`: from config, side of the frame, and widths of context and latent."""

DECODERS: Mapping[str, Callable[[DecoderConfig, int, int], Decoder]] = {"residual": Decoder}
"""By `DecoderConfig.kind`: from config, side of the frame, and width of the latent."""
