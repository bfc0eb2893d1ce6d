"""A frame and its context to the posterior of the latent: an NVAE-style pyramid."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from aime.errors import AimeError, expect_positive
from aime.primitives.blocks import FiLM, FrameNorm, ResidualCell, TimeAxis, channels_last
from aime.primitives.boundary_layers import BoundaryConv2d, BoundaryLinear
from aime.primitives.config_io import WAS_LIST, later
from aime.primitives.distributions import DiagonalGaussian


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of the encoder's residual tower, and how much a latent may tell.

    Raises:
        AimeError: if not 0 < min_std < max_mean.
    """

    kind: ClassVar[str] = "residual"
    channels: int = 64
    """Channels at half resolution."""
    multipliers: ClassVar[tuple[int, int, int]] = (1, 2, 2)
    """Channels of the levels at 1/2, 1/4 and 1/8 of the frame, in units of `channels`."""
    cells: int = field(default=1, metadata=WAS_LIST)
    """Residual cells at each level."""
    max_mean: float | None = field(default=1.0, metadata=later(before=None))
    """What the size of the posterior's means stays below, in units of the latent; None: they go as far as they like."""
    min_std: float = 0.1
    """Smallest standard deviation of the posterior, in units of the latent."""

    def __post_init__(self) -> None:
        expect_positive(self, "min_std", of="encoder")
        if self.max_mean is not None and not self.max_mean > self.min_std:
            raise AimeError(
                f"encoder.max_mean is {self.max_mean} and min_std {self.min_std}; expected more than min_std, or none: "
                "means that stay within the noise tell nothing"
            )


class Encoder(nn.Module):
    """The interface of every encoder: features of a frame at three scales, and q(z_t | x_t, c_t) from them."""

    channels: tuple[int, ...]
    """Channels of the features at 1/2, 1/4 and 1/8 of the frame."""

    def pyramid(self, frames: Float[Tensor, "N 3 H W"]) -> tuple[Tensor, ...]:
        """Features at 1/2, 1/4 and 1/8 of centred frames in [-1, 1], each frame by itself, before any context."""
        raise NotImplementedError

    def finest(self, frames: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
        """The features at 1/2 alone."""
        return self.pyramid(frames)[0]

    def forward(self, pyramid: tuple[Tensor, ...], contexts: Float[Tensor, "N context"]) -> DiagonalGaussian:
        """q(z_t | x_t, c_t), mean and std `[N,latent]`, from the frames' pyramid and their contexts."""
        raise NotImplementedError


class ResidualEncoder(Encoder):
    """q(z_t | x_t, c_t): residual cells over three scales, the context entering by FiLM at the coarsest.

    A context of width 0 does not enter: q(z_t | x_t).
    Reference: Vahdat & Kautz 2020 (NVAE), arXiv 2007.03898, with the hierarchy in the features: one latent.
    """

    def __init__(self, config: EncoderConfig, image_size: int, context: int, latent: int) -> None:
        super().__init__()
        self.config = config
        self.channels = widths = tuple(config.channels * multiplier for multiplier in config.multipliers)
        self.stem = BoundaryConv2d(12, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(
            nn.ModuleList(ResidualCell(width, fine=depth == 0) for _ in range(config.cells))
            for depth, width in enumerate(widths)
        )
        self.downs = nn.ModuleList(
            nn.Conv2d(above, below, 3, stride=2, padding=1) for above, below in itertools.pairwise(widths)
        )
        self.context = FiLM(context, widths[-1]) if context else None
        self.final = ResidualCell(widths[-1])
        self.norm = FrameNorm(widths[-1])
        self.squeeze = nn.Conv2d(widths[-1], 16, 1)
        cells = (image_size // 8) ** 2
        self.head = BoundaryLinear(16 * cells, 2 * latent)

    def pyramid(self, frames: Float[Tensor, "N 3 H W"]) -> tuple[Tensor, ...]:
        """See `Encoder.pyramid`."""
        levels = [self.finest(frames)]
        for down, cells in zip(self.downs, list(self.levels)[1:], strict=True):
            levels.append(_through(cells, down(levels[-1])))
        return tuple(levels)

    def finest(self, frames: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
        """See `Encoder.finest`."""
        return _through(self.levels[0], self.stem(channels_last(F.pixel_unshuffle(frames, 2))))

    def forward(self, pyramid: tuple[Tensor, ...], contexts: Float[Tensor, "N context"]) -> DiagonalGaussian:
        """See `Encoder.forward`."""
        coarsest = pyramid[-1] if self.context is None else self.context(pyramid[-1], contexts)
        features = self.final(coarsest, TimeAxis())
        flat = self.squeeze(F.silu(self.norm(features))).flatten(1)
        mean, spread = self.head(flat).to(torch.promote_types(torch.float32, contexts.dtype)).chunk(2, dim=-1)
        # starts little above the floor: a wide posterior carries no information, and the KL keeps it so
        std = F.softplus(spread - 2.5) + self.config.min_std
        if (limit := self.config.max_mean) is not None:
            # without a limit the means grow until the noise has no effect
            mean = limit * torch.tanh(mean / limit)
        return DiagonalGaussian(mean, std)


def _through(cells: nn.Module, features: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
    alone = TimeAxis()
    for cell in cells.children():
        features = cell(features, alone)
    return features
