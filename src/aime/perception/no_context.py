"""The context switched off: tokens are computed and not used."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from aime.perception.perceiver import ContextMaker, PerceiverConfig, Percept
from aime.primitives.transformer import TimeCache


class NoContext(ContextMaker):
    """A context of width 0 in the Perceiver's place: no parameter, and no computation.

    Losses about the context are off.
    """

    reads_tokens: ClassVar[bool] = False

    def __init__(self, config: PerceiverConfig, codes: int, code_width: int, grid: int, context: int) -> None:
        """The sizes are those of the Perceiver, and unused."""
        super().__init__()

    def forward(
        self,
        codes: Float[Tensor, "B T code h w"],
        attention: Float[Tensor, "B T y x"],
        cache: TimeCache | None = None,
    ) -> tuple[Percept, TimeCache | None]:
        """Contexts `[B,T,0]` and latents `[B,T,0,0]`; the cache stays as it is."""
        batch, length = codes.shape[:2]
        return Percept(codes.new_zeros(batch, length, 0), codes.new_zeros(batch, length, 0, 0)), cache

    def empty_cache(self, batch: int, like: Float[Tensor, "..."]) -> TimeCache:
        """A cache of 0 frames of 0 latents, in the type and on the device of `like`."""
        nothing = like.new_zeros(batch, 0, 0, 0, 0)
        return TimeCache(nothing, nothing, nothing.new_zeros(batch, 0).bool())
