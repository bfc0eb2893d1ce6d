"""A latent and an attention map to a frame: an NVAE-style decoder with a calibrated likelihood."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from aime.primitives.blocks import FiLM, FrameNorm, ResidualCell, TimeAxis, channels_last
from aime.primitives.boundary_layers import BoundaryConv2d
from aime.primitives.config_io import WAS_LIST


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the decoder's residual tower."""

    kind: ClassVar[str] = "residual"
    channels: int = 64
    """Channels at half resolution."""
    multipliers: ClassVar[tuple[int, int, int]] = (1, 2, 2)
    """Channels of the levels at 1/2, 1/4 and 1/8 of the frame, in units of `channels`."""
    cells: int = field(default=1, metadata=WAS_LIST)
    """Residual cells at each level."""
    error_decay: ClassVar[float] = 0.98
    """Decay of the running squared error that is the variance of the likelihood."""


class AttentionGain(nn.Module):
    """Scales features where the map is above or below uniform: f · (1 + g ⊙ (n·A − 1)), n cells, g learned."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((channels,), 0.1))

    def forward(
        self, features: Float[Tensor, "N C H W"], attention: Float[Tensor, "N h w"]
    ) -> Float[Tensor, "N C H W"]:
        """Modulate `[N,C,H,W]` by a map that sums to 1; a uniform map changes nothing."""
        relative = attention[:, None] * attention.shape[-2] * attention.shape[-1] - 1
        relative = F.interpolate(relative, features.shape[-2:], mode="area")
        scale = channels_last(1 + relative * self.gain[:, None, None])
        return features * scale.to(features.dtype)


class Decoder(nn.Module):
    """p(x_t | z_t, A_t): a Gaussian per pixel, over frames from which the training set's mean frame is taken away.

    It starts at zero, which is that frame. The variance is one number for all pixels, the running mean squared error
    (the optimal σ-VAE: Rybkin et al. 2021, arXiv 2006.13202, equation 5). The latent is spread over the coarsest
    features and modulates them, and those at a quarter of the frame, by FiLM. The map scales what enters every level;
    it has a quarter of the frame's resolution, so the finest level takes it just before its features are upsampled, at
    a quarter of the cost.
    """

    variance: Tensor

    def __init__(self, config: DecoderConfig, image_size: int, latent: int) -> None:
        super().__init__()
        self.config = config
        self.grid = image_size // 8
        widths = [config.channels * multiplier for multiplier in reversed(config.multipliers)]
        self.register_buffer("variance", torch.tensor(0.01))
        self.spread = nn.Linear(latent, widths[0] * self.grid**2)
        self.levels = nn.ModuleList(
            nn.ModuleList(ResidualCell(width, fine=depth == 2) for _ in range(config.cells))
            for depth, width in enumerate(widths)
        )
        self.films = nn.ModuleList(FiLM(latent, width) for width in widths[:-1])
        self.gains = nn.ModuleList(AttentionGain(width) for width in (widths[0], *widths[:-1]))
        self.ups = nn.ModuleList(nn.Conv2d(above, 4 * below, 1) for above, below in itertools.pairwise(widths))
        self.norm = FrameNorm(widths[-1])
        self.head = BoundaryConv2d(widths[-1], 12, 3, padding=1)
        for weight in self.head.parameters():
            nn.init.zeros_(weight)

    def forward(
        self, latents: Float[Tensor, "N latent"], attention: Float[Tensor, "N h w"]
    ) -> Float[Tensor, "N 3 H W"]:
        """Mean centred frames, roughly in [-1, 1] (not clipped), from latents and maps that sum to 1."""
        alone = TimeAxis()
        features = rearrange(self.spread(latents), "n (h w c) -> n c h w", h=self.grid, w=self.grid)
        for depth, (cells, gain) in enumerate(zip(self.levels, self.gains, strict=True)):
            features = gain(features, attention)
            if depth:
                features = channels_last(F.pixel_shuffle(self.ups[depth - 1](features), 2))
            if depth < len(self.films):
                features = self.films[depth](features, latents)
            for cell in cells:  # type: ignore[attr-defined]
                features = cell(features, alone)
        return F.pixel_shuffle(self.head(F.silu(self.norm(features))), 2)

    @torch.no_grad()
    def calibrate(self, squared_error: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """The likelihood's variance: in training mode this batch's error, which also moves the running one."""
        if not self.training:
            return self.variance
        error = squared_error.detach().clamp_min(1e-6)
        error = error.to(self.variance.dtype)
        self.variance.lerp_(torch.where(error.isfinite(), error, self.variance), 1 - self.config.error_decay)
        return error
