"""Frames to discrete tokens and back: a causal 3-D UNet around a vector quantiser."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from aime.primitives.blocks import CausalConv3d, FrameNorm, ResidualCell, TimeAxis, channels_last
from aime.primitives.boundary_layers import BoundaryConv2d
from aime.primitives.config_io import WAS_LIST
from aime.primitives.quantize import VectorQuantizer


@dataclass(frozen=True)
class TokenizerConfig:
    """Sizes of the causal VQ tokenizer."""

    kind: ClassVar[str] = "causal_vq"
    channels: int = 64
    """Channels at half resolution."""
    multipliers: ClassVar[tuple[int, int, int]] = (1, 2, 2)
    """Channels of the levels at 1/2, 1/4 and 1/8 of the frame, in units of `channels`."""
    cells: int = field(default=1, metadata=WAS_LIST)
    """Residual cells at each level."""
    kernel_time: ClassVar[int] = 3
    """Frames that a causal convolution at 1/8 resolution reads, its own included; finer levels see single frames."""
    codes: int = 1024
    """Number of codes."""
    code_width: int = 256
    """Width of a code."""


class Tokens(NamedTuple):
    """Tokens of T frames of B sequences."""

    indices: Int[Tensor, "B T h w"]
    codes: Float[Tensor, "B T code h w"]
    """Code vectors, with a straight-through gradient to the encoder."""
    commitment: Float[Tensor, "B T"]


class DownTower(nn.Module):
    """The contracting half of the UNet, `[T·B,3,H,W]` -> `[T·B,code,H/8,W/8]`, causal in time.

    Every level also reaches the code grid directly, pooled and projected (skips inside the encoder only).
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        widths = [config.channels * multiplier for multiplier in config.multipliers]
        kernel_times = (1, 1, config.kernel_time)
        self.stem = BoundaryConv2d(12, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(
            nn.ModuleList(ResidualCell(width, kernel_time, fine=depth == 0) for _ in range(config.cells))
            for depth, (width, kernel_time) in enumerate(zip(widths, kernel_times, strict=True))
        )
        self.downs = nn.ModuleList(
            nn.Conv2d(above, below, 3, stride=2, padding=1) for above, below in itertools.pairwise(widths)
        )
        self.skips = nn.ModuleList(nn.Conv2d(width, config.code_width, 1) for width in widths)

    def forward(self, frames: Float[Tensor, "TB 3 H W"], time: TimeAxis) -> Float[Tensor, "TB code h w"]:
        """Encode time-major centred frames."""
        features = self.stem(channels_last(F.pixel_unshuffle(frames, 2)))
        reached = []
        for depth, (cells, skip) in enumerate(zip(self.levels, self.skips, strict=True)):
            if depth:
                features = self.downs[depth - 1](features)
            for cell in cells:  # type: ignore[attr-defined]
                features = cell(features, time)
            reached.append(skip(F.avg_pool2d(features, 4 >> depth) if depth < 2 else features))
        return torch.stack(reached).sum(0)


class UpTower(nn.Module):
    """The expanding half of the UNet, `[T·B,code,H/8,W/8]` -> `[T·B,3,H,W]`, causal in time, reading codes only."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        widths = [config.channels * multiplier for multiplier in reversed(config.multipliers)]
        kernel_times = (config.kernel_time, 1, 1)
        self.stem = CausalConv3d(config.code_width, widths[0], config.kernel_time, kernel=1, boundary=True)
        self.levels = nn.ModuleList(
            nn.ModuleList(ResidualCell(width, kernel_time, fine=depth == 2) for _ in range(config.cells))
            for depth, (width, kernel_time) in enumerate(zip(widths, kernel_times, strict=True))
        )
        self.ups = nn.ModuleList(nn.Conv2d(above, 4 * below, 1) for above, below in itertools.pairwise(widths))
        self.norm = FrameNorm(widths[-1])
        self.head = BoundaryConv2d(widths[-1], 12, 3, padding=1)

    def forward(self, codes: Float[Tensor, "TB code h w"], time: TimeAxis) -> Float[Tensor, "TB 3 H W"]:
        """Decode time-major code grids to centred frames, roughly in [-1, 1] (not clipped)."""
        features = self.stem(channels_last(codes), time)
        for depth, cells in enumerate(self.levels):
            if depth:
                features = channels_last(F.pixel_shuffle(self.ups[depth - 1](features), 2))
            for cell in cells:  # type: ignore[attr-defined]
                features = cell(features, time)
        return F.pixel_shuffle(self.head(F.silu(self.norm(features))), 2)


class Tokenizer(nn.Module):
    """Causal VQ tokenizer: frames `[B,T,3,H,W]` to indices `[B,T,H/8,W/8]` and back.

    No skip connection crosses the quantiser, so the tokens carry everything that the decoder draws. Index t depends on
    frames 1..t only. Reference: van den Oord et al. 2017 (VQ-VAE), arXiv 1711.00937.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.down = DownTower(config)
        self.quantizer = VectorQuantizer(config.codes, config.code_width)
        self.up = UpTower(config)

    def forward(
        self,
        frames: Float[Tensor, "B T 3 H W"],
        before: tuple[Tensor, ...] | None = None,
        valid: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Tokens, tuple[Tensor, ...]]:
        """Tokenise centred frames in [-1, 1].

        Args:
            frames: centred.
            before: what an earlier call kept, for stepping through a video.
            valid: False on padding, which the codebook does not learn from.

        Returns:
            The tokens, and the features to pass as `before` with the frames that follow.
        """
        batch = frames.shape[0]
        time = TimeAxis(before, batch)
        vectors = self.down(rearrange(frames, "b t c h w -> (t b) c h w"), time)
        counted = None if valid is None else rearrange(valid, "b t -> (t b)")
        precise = vectors.float() if vectors.dtype != self.quantizer.codebook.dtype else vectors
        quantized = self.quantizer(precise, counted)
        tokens = Tokens(
            rearrange(quantized.indices, "(t b) h w -> b t h w", b=batch),
            rearrange(quantized.codes, "(t b) d h w -> b t d h w", b=batch),
            rearrange(quantized.commitment, "(t b) -> b t", b=batch),
        )
        return tokens, tuple(time.kept)

    def reconstruct(self, codes: Float[Tensor, "B T code h w"]) -> Float[Tensor, "B T 3 H W"]:
        """Centred frames from code vectors, roughly in [-1, 1]."""
        batch = codes.shape[0]
        frames = self.up(rearrange(codes, "b t d h w -> (t b) d h w"), TimeAxis(None, batch))
        return rearrange(frames, "(t b) c h w -> b t c h w", b=batch)
