"""Two critics of pictures: one of single frames, one of how frames follow each other."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from aime.errors import AimeError
from aime.primitives.blocks import channels_last

FOLD = 4
"""Pixels of a side that are folded into channels: convolutions at full resolution would cost ten times as much."""


CHANNELS = 24
"""Channels at a quarter of the frame; twice and then four times as many at the levels below."""

LEVELS = 3
"""Levels, each half as large as the one before; the lowest judges the patches."""

WINDOW = 4
"""Consecutive frames that the temporal discriminator judges at once."""


class Judgement(NamedTuple):
    """What one discriminator thinks of N pictures."""

    logits: Float[Tensor, "N h w"]
    """Log odds that each patch is real, in nats; sigmoid(logits) is D(x)."""
    features: tuple[Float[Tensor, "N C H W"], ...]
    """Of every level, finest first; C, H and W differ from level to level."""


class Judged(NamedTuple):
    """What both think of B clips of T frames."""

    image: Judgement
    """Of the B·T frames, in clip-major order."""
    temporal: Judgement
    """Of the B·(T // window) windows, in clip-major order."""


class SpectralConv2d(nn.Module):
    """A convolution whose weight, as a matrix of outputs by all else, is divided by its largest singular value.

    In training mode each call does one step of the power iteration that estimates that value; in eval mode the last
    estimate stands. The normalised weight is computed in fp32 also under autocast: the iteration fails in mixed types.

    Reference: Miyato et al. 2018 (SN-GAN), arXiv 1802.05957, equation 8 and algorithm 1.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2)
        spectral_norm(self.conv)

    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D h w"]:
        """Convolve `[N,C,H,W]`; in bf16 under autocast."""
        with torch.autocast(images.device.type, enabled=False):
            weight = self.conv.weight
        return F.conv2d(images, weight, self.conv.bias, self.conv.stride, self.conv.padding)


class PatchTower(nn.Module):
    """Convolutions down to one log odds per patch (PatchGAN: Isola et al. 2017, arXiv 1611.07004, section 3.2.2).

    No normalisation of features: statistics of a batch would tell its real and fake halves apart. The stride divides
    the kernel, so that every pixel has the same share in the gradient.
    """

    def __init__(self, inputs: int, channels: int, levels: int) -> None:
        super().__init__()
        widths = [channels * 2 ** min(level, 2) for level in range(levels)]
        self.levels = nn.ModuleList(
            [
                SpectralConv2d(inputs, widths[0], 3),
                *(SpectralConv2d(above, below, 4, stride=2) for above, below in itertools.pairwise(widths)),
            ]
        )
        self.head = SpectralConv2d(widths[-1], 1, 3)

    def forward(self, images: Float[Tensor, "N C H W"]) -> Judgement:
        """Judge `[N,C,H,W]`."""
        features = [channels_last(images)]
        for level in self.levels:
            features.append(F.leaky_relu(level(features[-1]), 0.2))
        return Judgement(self.head(features[-1]).squeeze(1), tuple(features[1:]))


class ImageDiscriminator(nn.Module):
    """D(x) for every patch of a frame by itself: does it look like the data?"""

    def __init__(self, channels: int = CHANNELS, levels: int = LEVELS) -> None:
        super().__init__()
        self.tower = PatchTower(3 * FOLD**2, channels, levels)

    def forward(self, frames: Float[Tensor, "N 3 H W"]) -> Judgement:
        """Judge frames of values around [0, 1]; H and W are multiples of 4."""
        return self.tower(F.pixel_unshuffle(2 * frames - 1, FOLD))


class TemporalDiscriminator(nn.Module):
    """D(x) for every patch of a window of consecutive frames: does it move like the data?

    It reads the first frame and the differences from each frame to the next, all at once, with no order of past and
    future. Differences by themselves are small beside frames, and a layer whose gain is bounded by 1 cannot amplify
    them out of a stack of frames.
    """

    def __init__(self, channels: int = CHANNELS, levels: int = LEVELS, window: int = WINDOW) -> None:
        super().__init__()
        self.tower = PatchTower(window * 3 * FOLD**2, channels, levels)

    def forward(self, windows: Float[Tensor, "N window 3 H W"]) -> Judgement:
        """Judge windows of values around [0, 1]; H and W are multiples of 4."""
        first = 2 * windows[:, :1] - 1
        changes = 2 * (windows[:, 1:] - windows[:, :-1])
        folded = F.pixel_unshuffle(torch.cat([first, changes], dim=1), FOLD)
        return self.tower(rearrange(folded, "n k c h w -> n (k c) h w"))


class Discriminators(nn.Module):
    """Both discriminators (after Clark et al. 2019, DVD-GAN, arXiv 1907.06571: one for frames, one for motion)."""

    def __init__(self, channels: int = CHANNELS, levels: int = LEVELS, window: int = WINDOW) -> None:
        super().__init__()
        self.window = window
        self.image = ImageDiscriminator(channels, levels)
        self.temporal = TemporalDiscriminator(channels, levels, window)

    def forward(self, frames: Float[Tensor, "B T 3 H W"]) -> Judged:
        """Judge clips, frame by frame and in windows that follow each other; frames left over at the end have none.

        Args:
            frames: values around [0, 1], not necessarily clipped; H and W are multiples of 4.

        Raises:
            AimeError: if T is below the window, or H or W is no multiple of 4.
        """
        length, height, width = frames.shape[1], *frames.shape[-2:]
        window = self.window
        if length < window:
            raise AimeError(
                f"T is {length} frames; expected {window} or more, the window of the temporal discriminator: take "
                "longer clips"
            )
        if height % FOLD or width % FOLD:
            raise AimeError(f"frames are {height} x {width} pixels; expected multiples of {FOLD}: resize them")
        whole = frames[:, : length // window * window]
        return Judged(
            self.image(frames.flatten(0, 1)),
            self.temporal(rearrange(whole, "b (n k) c h w -> (b n) k c h w", k=window)),
        )
