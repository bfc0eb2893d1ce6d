"""The tokenizers, and what makes a context of tokens: one file each, and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aime.perception.no_context import NoContext
from aime.perception.perceiver import CausalPerceiver, ContextMaker
from aime.perception.tokenizer import Tokenizer, TokenizerConfig

TOKENIZERS: Mapping[str, Callable[[TokenizerConfig], Tokenizer]] = {"causal_vq": Tokenizer}
"""By `TokenizerConfig.kind`."""

PERCEIVERS: Mapping[str, type[ContextMaker]] = {
    "causal": CausalPerceiver,
    "none": NoContext,
}
"""By `model.perceiver.kind`: from config, number and width of the codes, cells of their grid a side, and width of the
context."""
