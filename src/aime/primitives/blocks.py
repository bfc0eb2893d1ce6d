"""Convolutional building blocks: per-frame normalisation, causal 3-D convolution, NVAE-style residual cells."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from aime.primitives.boundary_layers import BoundaryConv2d, BoundaryLinear


class FrameNorm(nn.GroupNorm):
    """Group normalisation with one group, over the channels and pixels of each frame.

    Statistics are per frame, so no information flows backwards in time. One group is 3 to 11 times faster than eight
    in bf16 channels_last on a CPU.

    Reference: Wu & He 2018, arXiv 1803.08494.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)


@dataclass
class TimeAxis:
    """Past features for causal convolutions over T·B stacked frames (time-major).

    The causal convolutions of a network call `extend` in a fixed order. `before` holds one tensor `[P·B,C,H,W]` of past
    features per call, or is None at the start of a sequence, where the past is zero. `kept` collects the `before` of
    the following frames.
    """

    before: tuple[Tensor, ...] | None = None
    batch: int = 1
    kept: list[Tensor] = field(default_factory=list)

    def extend(self, features: Float[Tensor, "TB C H W"], past: int) -> Float[Tensor, "PTB C H W"]:
        """Prepend `past` earlier frames, `[T·B,C,H,W]` -> `[(past+T)·B,C,H,W]`."""
        rows = past * self.batch
        if self.before is None:
            earlier = features.new_zeros(rows, *features.shape[1:])
        else:
            earlier = self.before[len(self.kept)].to(features.dtype)
        extended = torch.cat([earlier.contiguous(memory_format=torch.channels_last), features])
        self.kept.append(extended[-rows:])
        return extended


class CausalConv3d(nn.Module):
    """3-D convolution, causal in time and of the same size: y_t reads frames t-kernel_time+1..t.

    Computed as a 2-D convolution, with fast channels_last kernels, whose input channels are the time taps (oldest
    first): `conv3d(x)_t = conv2d([x_{t-k+1}, …, x_t])`.
    """

    def __init__(self, inputs: int, outputs: int, kernel_time: int, kernel: int = 3, boundary: bool = False) -> None:
        """A hidden layer or, with `boundary`, an input or output layer."""
        super().__init__()
        self.kernel_time = kernel_time
        kind = BoundaryConv2d if boundary else nn.Conv2d
        self.conv = kind(inputs * kernel_time, outputs, kernel, padding=kernel // 2)

    def forward(self, features: Float[Tensor, "TB C H W"], time: TimeAxis) -> Float[Tensor, "TB D H W"]:
        """Convolve T·B time-major frames `[T·B,C,H,W]` -> `[T·B,D,H,W]`."""
        if self.kernel_time == 1:
            return self.conv(features)
        extended = time.extend(features, self.kernel_time - 1)
        rows = features.shape[0]
        taps = [extended[tap * time.batch : tap * time.batch + rows] for tap in range(self.kernel_time)]
        return self.conv(torch.cat(taps, dim=1))


class SqueezeExcite(nn.Module):
    """Channel gates from the spatial mean: σ(W₂ SiLU(W₁ mean f)) (Hu et al. 2018, arXiv 1709.01507)."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(8, channels // reduction)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, features: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C 1 1"]:
        """A gate in (0, 1) for every channel of `[N,C,H,W]`."""
        # the mean over a channels-innermost view gives its gradient the layout of the gradients it is added to
        means = features.permute(0, 2, 3, 1).flatten(1, 2).mean(dim=1)
        gates = torch.sigmoid(self.excite(F.silu(self.squeeze(means))))
        return gates[:, :, None, None].to(features.dtype)


class FiLM(nn.Module):
    """Feature-wise linear modulation f · (1 + s) + b with (s, b) linear in a condition (Perez et al. 2018, 1709.07871).

    Initialised as the identity.
    """

    def __init__(self, condition: int, channels: int) -> None:
        super().__init__()
        self.project = BoundaryLinear(condition, 2 * channels)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(
        self, features: Float[Tensor, "N C H W"], condition: Float[Tensor, "N condition"]
    ) -> Float[Tensor, "N C H W"]:
        """Modulate `[N,C,H,W]` by `[N,condition]`."""
        scale, shift = self.project(condition).to(features.dtype).chunk(2, dim=-1)
        return torch.addcmul(shift[:, :, None, None], features, 1 + scale[:, :, None, None])


class ResidualCell(nn.Module):
    """NVAE-style residual cell: norm, SiLU, conv, norm, SiLU, conv, squeeze-excite, residual sum.

    The 3x3 convolutions are not depthwise, which is several times faster on CPUs. With `kernel_time` > 1 the first one
    is causal in time. `fine=True` omits the first norm and the squeeze-excite, which at the finest level cost as much
    as a convolution each.

    Reference: Vahdat & Kautz 2020 (NVAE), arXiv 2007.03898, figure 3.
    """

    def __init__(self, channels: int, kernel_time: int = 1, fine: bool = False) -> None:
        super().__init__()
        self.norm_in = nn.Identity() if fine else FrameNorm(channels)
        self.conv_in = CausalConv3d(channels, channels, kernel_time)
        self.norm_out = FrameNorm(channels)
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1)
        self.gate = None if fine else SqueezeExcite(channels)

    def forward(self, features: Float[Tensor, "TB C H W"], time: TimeAxis) -> Float[Tensor, "TB C H W"]:
        """Map `[T·B,C,H,W]` to the same shape."""
        hidden = self.conv_in(F.silu(self.norm_in(features)), time)
        hidden = self.conv_out(F.silu(self.norm_out(hidden)))
        return features + hidden if self.gate is None else torch.addcmul(features, hidden, self.gate(hidden))


def channels_last(images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
    """The images in channels_last memory format, which bf16 convolutions need to be fast."""
    return images.contiguous(memory_format=torch.channels_last)
