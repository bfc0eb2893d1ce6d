"""The Gram loss against sums over pixels, what it teaches, and what it does not see."""

from __future__ import annotations

import itertools

import pytest
import torch
from tests.models import SIZE, small_config
from torch import Tensor

from aime.objectives.elbo import texture_nats
from aime.world_model.model import AIME

B, T = 2, 3


@pytest.fixture
def model() -> AIME:
    torch.manual_seed(0)
    return AIME(small_config()).double().train()


def pictures(seed: int) -> Tensor:
    return torch.rand(B, T, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def nats(model: AIME, reconstructions: Tensor, frames: Tensor, valid: Tensor | None = None) -> Tensor:
    torch.manual_seed(1)  # the same frames are drawn
    return texture_nats(model, reconstructions, frames, torch.ones(B, T, dtype=torch.bool) if valid is None else valid)


def test_is_the_relative_distance_of_sums_of_products_over_pixels(model: AIME) -> None:
    frames, reconstructions = (pictures(seed)[:1, :1].expand(B, T, -1, -1, -1) for seed in (0, 1))

    @torch.no_grad()
    def gram(picture: Tensor) -> list[float]:
        features = model.encoder.finest((picture - model.mean_image)[None])[0]
        features = (features - features.mean()) / (features.var(unbiased=False) + 1e-5).sqrt()
        return [float((one * other).sum()) for one, other in itertools.product(features, features)]

    real, dreamt = gram(frames[0, 0]), gram(reconstructions[0, 0])
    apart = sum((a - b) ** 2 for a, b in zip(dreamt, real, strict=True)) / sum(a**2 for a in real)
    expected = torch.tensor(0.5 * 3 * SIZE * SIZE * apart, dtype=torch.float64)
    torch.testing.assert_close(nats(model, reconstructions, frames), expected)


def test_is_zero_for_the_frames_themselves_and_grows_with_blur(model: AIME) -> None:
    frames = pictures(0)
    blurred = [torch.lerp(frames, frames.mean(dim=(-1, -2), keepdim=True), share) for share in (0.0, 0.2, 0.6, 0.9)]
    values = [float(nats(model, each, frames)) for each in blurred]
    assert values[0] == 0
    assert values == sorted(set(values))


def test_teaches_what_drew_the_frames_and_not_the_encoder(model: AIME) -> None:
    reconstructions = pictures(1).requires_grad_()
    nats(model, reconstructions, pictures(0)).backward()
    assert reconstructions.grad is not None and reconstructions.grad.any()
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


def test_padding_does_not_count(model: AIME) -> None:
    frames, reconstructions = pictures(0), pictures(1)
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[1, 1:] = False
    changed = torch.where(valid[..., None, None, None], frames, torch.zeros_like(frames))
    torch.testing.assert_close(
        nats(model, reconstructions, frames, valid), nats(model, reconstructions, changed, valid)
    )
    assert nats(model, reconstructions, frames, torch.zeros_like(valid)) == 0
