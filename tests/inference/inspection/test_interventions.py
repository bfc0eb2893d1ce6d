"""The values that stand in for a part's work."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from aime.inference.inspection.interventions import (
    commonest_token,
    mean_over_clips,
    moment_matched,
    moved_map,
    of_another_clip,
    uniform_map,
)
from aime.primitives.distributions import DiagonalGaussian, GaussianMixture


def test_a_matched_gaussian_has_the_mixtures_moments() -> None:
    torch.manual_seed(0)
    mixture = GaussianMixture(
        torch.tensor([0.2, 0.3, 0.5]).log().double(), torch.randn(3, 2).double(), torch.rand(3, 2).double() + 0.1
    )
    found = moment_matched(mixture)
    assert found.means.shape == (1, 2)
    grid = np.linspace(-12, 12, 200_001)
    for at in range(2):
        parts = zip(mixture.weights.numpy(), mixture.means[:, at].numpy(), mixture.stds[:, at].numpy(), strict=True)
        density = sum(weight * stats.norm.pdf(grid, mean, std) for weight, mean, std in parts)
        mean = np.trapezoid(grid * density, grid)
        np.testing.assert_allclose(found.means[0, at], mean, atol=1e-9)
        np.testing.assert_allclose(found.stds[0, at] ** 2, np.trapezoid((grid - mean) ** 2 * density, grid), atol=1e-9)


def test_one_component_is_matched_by_itself_to_the_last_bit() -> None:
    torch.manual_seed(0)
    alone = DiagonalGaussian(torch.randn(1000, 1, 7), torch.rand(1000, 1, 7) + 1e-3)
    found = moment_matched(GaussianMixture(torch.zeros(1000, 1), *alone))
    assert torch.equal(found.means, alone.mean)
    assert torch.equal(found.stds, alone.std)
    assert torch.equal(found.log_weights, torch.zeros(1000, 1))


def test_every_clip_has_the_value_of_another() -> None:
    value = (torch.arange(4).float(), (torch.arange(8).reshape(4, 2), None))
    clip, (pairs, nothing) = of_another_clip(value)
    assert clip.tolist() == [3, 0, 1, 2]
    assert pairs[0].tolist() == [6, 7]
    assert nothing is None


def test_the_commonest_token_of_each_cell() -> None:
    random = np.random.default_rng(0)
    tokens = random.integers(0, 4, (3, 5, 2, 2))
    found = commonest_token(torch.from_numpy(tokens)).numpy()
    assert found.shape == tokens.shape
    for row in range(2):
        for column in range(2):
            counts = np.bincount(tokens[:, :, row, column].ravel())
            [one] = np.unique(found[:, :, row, column])
            assert counts[one] == counts.max()


def test_maps_keep_their_sum() -> None:
    maps = torch.rand(2, 3, 8, 8).softmax(-1)
    moved = moved_map(maps)
    assert torch.equal(moved[..., 4], maps[..., 0])
    assert torch.equal(moved.sum((-1, -2)), maps.sum((-1, -2))) or torch.allclose(moved.sum(-1), maps.sum(-1))
    assert torch.allclose(uniform_map(maps).sum((-1, -2)), torch.ones(2, 3))
    held = mean_over_clips(torch.tensor([[[1.0], [2.0]], [[3.0], [6.0]]]))
    assert held.flatten().tolist() == [3.0] * 4
