"""Building blocks compared with torch's operations, and their causality."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from aime.primitives.blocks import CausalConv3d, FiLM, FrameNorm, ResidualCell, SqueezeExcite, TimeAxis


@pytest.mark.parametrize("kernel_time", [1, 2, 3])
def test_causal_convolution_is_conv3d_padded_on_the_past_side(kernel_time: int) -> None:
    torch.manual_seed(0)
    batch, length, inputs, outputs = 2, 5, 3, 4
    layer = CausalConv3d(inputs, outputs, kernel_time).double()
    video = torch.randn(batch, inputs, length, 6, 6, dtype=torch.float64)
    kernel = rearrange(layer.conv.weight, "o (t i) h w -> o i t h w", t=kernel_time)
    expected = F.conv3d(F.pad(video, (1, 1, 1, 1, kernel_time - 1, 0)), kernel, layer.conv.bias)
    stacked = rearrange(video, "b c t h w -> (t b) c h w")
    result = rearrange(layer(stacked, TimeAxis(None, batch)), "(t b) c h w -> b c t h w", b=batch)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("split", [1, 2, 4])
def test_a_kept_past_joins_two_halves_of_a_video(split: int) -> None:
    torch.manual_seed(0)
    batch, length = 2, 5
    cell = ResidualCell(8, kernel_time=3).double()
    video = torch.randn(length * batch, 8, 6, 6, dtype=torch.float64)
    whole = cell(video, TimeAxis(None, batch))
    first, second = TimeAxis(None, batch), None
    start = cell(video[: split * batch], first)
    second = TimeAxis(tuple(first.kept), batch)
    torch.testing.assert_close(torch.cat([start, cell(video[split * batch :], second)]), whole)


def test_frame_norm_sees_one_frame_at_a_time() -> None:
    norm, frames = FrameNorm(4), torch.randn(3, 4, 5, 5)
    other = frames.clone()
    other[2] = 100.0
    assert torch.equal(norm(frames)[:2], norm(other)[:2])
    torch.testing.assert_close(norm(frames), F.layer_norm(frames, (4, 5, 5)))


def test_squeeze_excite_gates_are_shares_of_each_channel() -> None:
    torch.manual_seed(0)
    gate, frames = SqueezeExcite(8), torch.randn(3, 8, 5, 5)
    gates = gate(frames)
    assert gates.shape == (3, 8, 1, 1)
    assert ((gates > 0) & (gates < 1)).all()
    means = frames.mean(dim=(2, 3))
    expected = torch.sigmoid(gate.excite(F.silu(gate.squeeze(means))))
    torch.testing.assert_close(gates[..., 0, 0], expected)


def test_film_starts_as_the_identity_and_learns_scale_and_shift() -> None:
    film, frames, condition = FiLM(3, 4), torch.randn(2, 4, 5, 5), torch.randn(2, 3)
    torch.testing.assert_close(film(frames, condition), frames)
    torch.nn.init.normal_(film.project.weight)
    scale, shift = film.project(condition).chunk(2, dim=-1)
    expected = frames * (1 + scale)[..., None, None] + shift[..., None, None]
    torch.testing.assert_close(film(frames, condition), expected)
