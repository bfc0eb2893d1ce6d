"""Gram matrices compared with a loop over pixels in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aime.primitives.gram import gram_loss, gram_matrix


def brute_force(features: np.ndarray) -> np.ndarray:
    count, channels, height, width = features.shape
    gram = np.zeros((count, channels, channels))
    for row in range(height):
        for column in range(width):
            pixel = features[:, :, row, column].astype(np.float64)
            for first in range(channels):
                for second in range(channels):
                    gram[:, first, second] += pixel[:, first] * pixel[:, second]
    return gram / (channels * height * width)


@pytest.mark.parametrize("autocast", [False, True])
def test_gram_loss_is_that_of_a_loop_in_float64(autocast: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    ours = 3 * torch.randn(2, 5, 6, 7, generator=generator) + 1
    theirs = torch.randn(2, 5, 4, 3, generator=generator)
    expected = [brute_force(each.numpy()) for each in (ours, theirs)]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        matrix, loss = gram_matrix(ours), gram_loss(ours, theirs)
    assert matrix.dtype == loss.dtype == torch.float32
    torch.testing.assert_close(matrix.double(), torch.from_numpy(expected[0]), rtol=1e-5, atol=1e-6)
    difference = 0.25 * ((expected[0] - expected[1]) ** 2).sum(axis=(1, 2))
    torch.testing.assert_close(loss.double(), torch.from_numpy(difference), rtol=1e-5, atol=1e-6)


def test_half_precision_features_are_summed_in_full_precision() -> None:
    features = torch.full((1, 2, 64, 64), 100.0, dtype=torch.float16)  # their sum of squares is past fp16's 65504
    torch.testing.assert_close(gram_matrix(features), torch.full((1, 2, 2), 5000.0))


def test_pixels_in_another_order_have_no_distance_and_other_textures_have() -> None:
    features = torch.randn(3, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shuffled = features.flatten(2)[..., torch.randperm(64)].view_as(features)
    torch.testing.assert_close(gram_loss(features, shuffled), torch.zeros(3, dtype=torch.float64))
    assert (gram_loss(features, 2 * features) > 0.1).all()


def test_the_gradient_is_that_of_finite_differences() -> None:
    features = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    others = torch.randn(2, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gram_loss, (features, others))
