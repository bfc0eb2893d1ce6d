"""Attention switched off: every map attends everywhere alike."""

from __future__ import annotations

from typing import ClassVar

import torch
from einops import repeat
from jaxtyping import Bool, Float
from torch import Tensor

from aime.attention.bottom_up import BottomUp
from aime.attention.schema import AttentionConfig, AttentionPillar
from aime.attention.top_down import TopDown


class UniformAttention(AttentionPillar):
    """1/n on each of n cells; one slot holds every cell, and the motion is 0.

    Losses about attention are off.
    """

    attends: ClassVar[bool] = False
    even: Tensor

    def __init__(self, config: AttentionConfig, channels: tuple[int, ...], belief: int, latent: int, grid: int) -> None:
        """Maps of `grid` x `grid` cells; the other sizes are those of the schema, and unused."""
        super().__init__()
        self.register_buffer("even", torch.full((grid, grid), 1 / grid**2), persistent=False)

    def look(self, pyramid: tuple[Tensor, ...]) -> BottomUp:
        """A uniform map and one slot without content for each of N frames."""
        frames = pyramid[0].shape[0]
        return BottomUp(
            map=self.initial_map(frames),
            slots=self.even.new_zeros(frames, 1, 1),
            slot_maps=torch.ones_like(self.even).expand(frames, 1, -1, -1),
            slot_error=self.even.new_zeros(frames),
        )

    def initial_map(self, batch: int) -> Float[Tensor, "B h w"]:
        """The uniform map."""
        return repeat(self.even, "h w -> b h w", b=batch)

    def expect(
        self,
        belief: Float[Tensor, "N belief"],
        latent: Float[Tensor, "N latent"],
        last_map: Float[Tensor, "N h w"],
        one_step: Bool[Tensor, " N"] | None = None,
    ) -> TopDown:
        """The uniform map, unmoved."""
        return TopDown(self.initial_map(belief.shape[0]), self.even.new_zeros(belief.shape[0], 2))

    def fuse(
        self, bottom_up: Float[Tensor, "N h w"], prior: Float[Tensor, "N h w"], belief: Float[Tensor, "N belief"]
    ) -> Float[Tensor, "N h w"]:
        """The uniform map."""
        return bottom_up
