"""The discriminators: bounded gain, patches that see their place, windows that see motion."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from aime.errors import AimeError
from aime.representation.discriminators import Discriminators, SpectralConv2d

CHANNELS, LEVELS, WINDOW = 6, 3, 3


@pytest.fixture
def discriminators() -> Discriminators:
    torch.manual_seed(0)
    return Discriminators(CHANNELS, LEVELS, WINDOW).train()


@pytest.fixture
def frames() -> Tensor:
    return torch.rand(2, 7, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_every_weight_has_a_largest_singular_value_of_one(discriminators: Discriminators, frames: Tensor) -> None:
    for weight in discriminators.parameters():
        weight.data.mul_(7)
    for _ in range(60):
        discriminators(frames[:, :3])
    layers = [module for module in discriminators.modules() if isinstance(module, SpectralConv2d)]
    assert len(layers) == 2 * (LEVELS + 1)
    for layer in layers:
        largest = torch.linalg.svdvals(layer.conv.weight.detach().double().flatten(1))[0]
        torch.testing.assert_close(largest, torch.ones_like(largest), rtol=0.02, atol=0)


def test_no_weight_of_a_convolution_goes_without_its_norm(discriminators: Discriminators) -> None:
    names = [name for name, weight in discriminators.named_parameters() if weight.ndim > 1]
    assert names
    assert all(name.endswith("parametrizations.weight.original") for name in names)


def test_a_spectral_convolution_is_the_convolution_by_its_divided_weight() -> None:
    torch.manual_seed(0)
    layer = SpectralConv2d(3, 5, 4, stride=2).double()
    for _ in range(100):
        _ = layer.conv.weight
    original = dict(layer.named_parameters())["conv.parametrizations.weight.original"]
    largest = torch.linalg.svdvals(original.flatten(1))[0]
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    expected = F.conv2d(images, original / largest, layer.conv.bias, stride=2, padding=1)
    torch.testing.assert_close(layer.eval()(images), expected, rtol=1e-4, atol=1e-4)


def test_shapes(discriminators: Discriminators, frames: Tensor) -> None:
    judged = discriminators(frames)
    assert judged.image.logits.shape == (14, 2, 2)
    assert judged.temporal.logits.shape == (4, 2, 2), "two windows of three frames fit into seven"
    for judgement, count in ((judged.image, 14), (judged.temporal, 4)):
        shapes = [tuple(level.shape) for level in judgement.features]
        assert shapes == [(count, 6, 8, 8), (count, 12, 4, 4), (count, 24, 2, 2)]


def test_frames_are_judged_by_themselves_and_windows_by_their_own_frames(
    discriminators: Discriminators, frames: Tensor
) -> None:
    discriminators.eval()
    other = frames.clone()
    other[0, 4] = 0
    before, after = discriminators(frames), discriminators(other)
    changed = (before.image.logits != after.image.logits).flatten(1).any(1)
    assert changed.nonzero().flatten().tolist() == [4]
    changed = (before.temporal.logits != after.temporal.logits).flatten(1).any(1)
    assert changed.nonzero().flatten().tolist() == [1]


def test_the_order_of_a_window_matters(discriminators: Discriminators, frames: Tensor) -> None:
    discriminators.eval()
    window = frames[:, :3]
    forwards, backwards = discriminators(window), discriminators(window.flip(1))
    assert not torch.allclose(forwards.temporal.logits, backwards.temporal.logits)


def test_every_weight_and_every_pixel_has_a_gradient(discriminators: Discriminators, frames: Tensor) -> None:
    frames = frames[:, :6].requires_grad_()
    judged = discriminators(frames)
    (judged.image.logits.square().sum() + judged.temporal.logits.square().sum()).backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in discriminators.parameters())
    assert frames.grad is not None
    assert (frames.grad != 0).float().mean() > 0.99


def test_eval_mode_changes_no_state_and_training_mode_moves_the_iteration_once(
    discriminators: Discriminators, frames: Tensor
) -> None:
    tower = discriminators.image.tower
    layer = tower.head.conv
    original = dict(layer.named_parameters())["parametrizations.weight.original"].detach().flatten(1)
    vector = dict(layer.named_buffers())["parametrizations.weight.0._v"]
    start = vector.clone()
    discriminators.eval()(frames)
    assert torch.equal(vector, start)
    discriminators.train()(frames)
    once = F.normalize(original.mT @ F.normalize(original @ start, dim=0), dim=0)
    torch.testing.assert_close(vector, once)


def test_bf16_autocast_runs_forwards_and_backwards_near_fp32(discriminators: Discriminators, frames: Tensor) -> None:
    exact = discriminators.eval()(frames)
    discriminators.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        judged = discriminators(frames)
    judged.image.logits.float().sum().backward()
    torch.testing.assert_close(judged.temporal.logits.float(), exact.temporal.logits, rtol=0.1, atol=0.02)
    assert all(weight.dtype == torch.float32 for weight in discriminators.state_dict().values())


def test_saved_discriminators_judge_the_same(discriminators: Discriminators, frames: Tensor) -> None:
    discriminators(frames)
    other = Discriminators(CHANNELS, LEVELS, WINDOW)
    other.load_state_dict(discriminators.state_dict())
    ours, theirs = discriminators.eval()(frames), other.eval()(frames)
    assert torch.equal(ours.image.logits, theirs.image.logits)
    assert torch.equal(ours.temporal.logits, theirs.temporal.logits)


def test_what_does_not_fit_is_named(discriminators: Discriminators, frames: Tensor) -> None:
    with pytest.raises(AimeError, match="T is 2 frames; expected 3"):
        discriminators(frames[:, :2])
    with pytest.raises(AimeError, match="30 x 32 pixels; expected multiples of 4"):
        discriminators(frames[:, :, :, :30])
