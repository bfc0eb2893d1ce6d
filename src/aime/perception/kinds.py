"""What makes a context of tokens, to choose by `model.perceiver.kind`: one file each, and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aime.perception.no_context import NoContext
from aime.perception.perceiver import CausalPerceiver, ContextMaker, PerceiverConfig

PERCEIVERS: Mapping[str, Callable[[PerceiverConfig, int, int, int, int], ContextMaker]] = {
    "causal": CausalPerceiver,
    "none": NoContext,
}
"""By name: from config, number and width of the codes, cells of their grid a side, and width of the context."""
