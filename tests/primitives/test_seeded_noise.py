"""The noise of a row depends on its seed only, and has the right distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from tests.models import small_config

from aime.errors import AimeError
from aime.primitives.distributions import (
    CensoredGaussian,
    CensoredMixture,
    DiagonalGaussian,
    GaussianMixture,
    from_uniforms,
)
from aime.primitives.seeded_noise import posterior_samples, seeded_uniforms
from aime.world_model.model import AIME

CPU = torch.device("cpu")


def test_a_row_depends_on_its_seed_alone() -> None:
    seeds = [7, 2**63 + 5, -3, 7]
    whole = seeded_uniforms(seeds, (4, 5, 6, 3), "future", CPU)
    assert torch.equal(seeded_uniforms(seeds[::-1], (4, 5, 6, 3), "future", CPU).flip(0), whole)
    assert torch.equal(whole[0], whole[3])
    assert torch.equal(seeded_uniforms([-3], (1, 2, 4, 2), "future", CPU)[0], whole[2, :2, :4, :2])
    assert torch.equal(seeded_uniforms(6, (2, 5, 6, 3), "future", CPU)[1], whole[0])
    assert not torch.isclose(whole[:3], seeded_uniforms(seeds[:3], (3, 5, 6, 3), "posterior", CPU)).any()


def test_rows_samples_and_steps_are_independent_and_uniform() -> None:
    noise = seeded_uniforms(range(40), (40, 10, 10, 5), "future", CPU).double().numpy()
    # on a grid of 2⁻²³ some 24 pairs fall together by chance
    assert noise.size - len(np.unique(noise)) < 60
    assert stats.kstest(noise.ravel(), "uniform").pvalue > 1e-3
    for axis in range(4):
        first, second = (
            np.take(noise, range(noise.shape[axis] - 1), axis),
            np.take(noise, range(1, noise.shape[axis]), axis),
        )
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.03


def test_as_many_seeds_as_rows_are_expected() -> None:
    with pytest.raises(AimeError, match=r"seed has 2 numbers; expected 3"):
        seeded_uniforms([1, 2], (3, 1, 1, 1), "future", CPU)


def test_uniforms_stand_for_values_of_a_mixture() -> None:
    mixture = GaussianMixture(
        torch.tensor([0.2, 0.5, 0.3]).log(), torch.tensor([[-4.0], [0.0], [5.0]]), torch.tensor([[0.5], [1.0], [2.0]])
    )
    noise = seeded_uniforms(0, (1, 1, 20_000, 4), "future", CPU)[0, 0]
    rows = GaussianMixture(*(field.expand(len(noise), *field.shape) for field in mixture))
    drawn = from_uniforms(rows, noise)
    shares = torch.bincount(drawn.component, minlength=3) / len(noise)
    torch.testing.assert_close(shares, torch.tensor([0.2, 0.5, 0.3]), atol=0.015, rtol=0)

    def cdf(value: np.ndarray) -> np.ndarray:
        parts = zip((0.2, 0.5, 0.3), (-4, 0, 5), (0.5, 1, 2), strict=True)
        return np.sum([weight * stats.norm.cdf(value, mean, std) for weight, mean, std in parts], axis=0)

    assert stats.kstest(drawn.value[:, 0].numpy(), cdf).pvalue > 1e-3


def test_uniforms_stand_for_values_of_a_censored_mixture() -> None:
    grid = torch.tensor([[0.9, -0.2], [-0.5, 0.1]])
    mixture = CensoredMixture(torch.tensor([0.3, 0.7]).log(), CensoredGaussian(grid, torch.full((2, 2), 0.4)))
    noise = seeded_uniforms(0, (1, 1, 20_000, 4), "future", CPU)[0, 0]
    rows = CensoredMixture(
        mixture.log_weights.expand(len(noise), 2),
        CensoredGaussian(*(field.expand(len(noise), 2, 2) for field in mixture.components)),
    )
    drawn = rows.from_uniforms(noise)
    assert drawn.abs().max() <= 1
    torch.testing.assert_close(drawn.mean(0), mixture.mean, atol=0.02, rtol=0)


def test_samples_of_the_posterior_are_those_of_its_distribution() -> None:
    posterior = DiagonalGaussian(torch.tensor([1.0, -2.0]).expand(3, 4, 2), torch.tensor([0.5, 2.0]).expand(3, 4, 2))
    drawn = posterior_samples(posterior, [1, 2, 3], 2000)
    assert drawn.shape == (3, 2000, 4, 2)
    assert stats.kstest(drawn[..., 1].numpy().ravel(), stats.norm(-2, 2).cdf).pvalue > 1e-3
    second = DiagonalGaussian(*(field[1:2] for field in posterior))
    assert torch.equal(posterior_samples(second, [2], 3)[0], drawn[1, :3])


@pytest.mark.parametrize("horizon", [None, 6])
def test_futures_and_surprise_of_a_clip_do_not_depend_on_the_batch(horizon: int | None) -> None:
    torch.manual_seed(0)
    model = AIME(small_config()).eval()
    frames, actions = torch.rand(3, 4, 3, 32, 32), torch.rand(3, 9, 2) * 2 - 1
    given = actions if horizon is None else actions[:, :6]
    seeds = [11, 5, 8]
    whole = model.predict_future(frames, given, 4, seeds, horizon=horizon)
    for row in range(3):
        one = slice(row, row + 1)
        alone = model.predict_future(frames[one], given[one], 2, [seeds[row]], horizon=horizon)
        assert torch.equal(alone.components, whole.components[one, :2])
        torch.testing.assert_close(alone.latents, whole.latents[one, :2], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(alone.actions, whole.actions[one, :2], atol=1e-4, rtol=1e-4)
    sampled = whole.latents[0]
    assert (sampled[0] - sampled[1]).abs().max() > 1e-3
