"""The kinds of attention to choose from by `model.attention.kind`: one file each, and one line here."""

from __future__ import annotations

from collections.abc import Mapping

from aime.attention.schema import AttentionPillar, AttentionSchema
from aime.attention.uniform import UniformAttention

ATTENTIONS: Mapping[str, type[AttentionPillar]] = {
    "schema": AttentionSchema,
    "uniform": UniformAttention,
}
"""By name: from config, channels of the pyramid's levels, widths of belief and latent, and the maps' cells a side."""
