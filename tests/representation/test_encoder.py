"""What the posterior may tell: bounded means, a floor under its noise, and the rate that follows from both."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from aime.errors import AimeError
from aime.primitives.config_io import from_plain, to_plain
from aime.primitives.distributions import DiagonalGaussian
from aime.representation.encoder import EncoderConfig, ResidualEncoder

SMALL = EncoderConfig(channels=4)


def posterior_of(config: EncoderConfig, scale: float) -> tuple[DiagonalGaussian, DiagonalGaussian]:
    """Of the same weights and frames, the head's made `scale` times as large: with `config`, and with free means."""
    posteriors = []
    for each in (config, replace(config, max_mean=None)):
        torch.manual_seed(0)
        encoder = ResidualEncoder(each, image_size=16, context=3, latent=5)
        encoder.head.weight.data *= scale
        encoder.head.bias.data *= scale
        frames = torch.randn(7, 3, 16, 16)
        with torch.no_grad():
            posteriors.append(encoder(encoder.pyramid(frames), torch.randn(7, 3)))
    return posteriors[0], posteriors[1]


@pytest.mark.parametrize("limit", [1.0, 2.5])
def test_means_are_those_of_a_free_posterior_squeezed_below_the_limit(limit: float) -> None:
    config = replace(SMALL, max_mean=limit)
    bounded, free = posterior_of(config, scale=100.0)
    assert free.mean.abs().max() > 3 * limit, "the test has nothing to bound"
    assert bounded.mean.abs().max() <= limit
    expected = [[limit * math.tanh(value / limit) for value in row] for row in free.mean.tolist()]
    torch.testing.assert_close(bounded.mean, torch.tensor(expected), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(bounded.std, free.std, rtol=0, atol=0)
    near, as_near = posterior_of(config, scale=0.01)
    torch.testing.assert_close(near.mean, as_near.mean, rtol=1e-3, atol=1e-5)


def test_no_standard_deviation_is_below_the_floor() -> None:
    posterior, _ = posterior_of(replace(SMALL, min_std=0.3), scale=1000.0)
    assert posterior.std.min() >= 0.3
    assert posterior.std.max() > 1.0


def test_bound_and_floor_limit_what_a_latent_tells() -> None:
    """The mutual information of a mean in [-m, m] and the mean plus noise is below Shannon's ½ ln(1 + m²/σ²)."""

    def told(means: Tensor, noise: float) -> float:
        grid = torch.linspace(-3, 3, 4001, dtype=torch.float64)
        density = torch.distributions.Normal(means.double()[:, None], noise).log_prob(grid).exp().mean(0)
        entropy = -torch.trapezoid(torch.special.xlogy(density, density), grid)
        return float(entropy) - 0.5 * math.log(2 * math.pi * math.e * noise**2)

    posterior, _ = posterior_of(SMALL, scale=1000.0)
    means = posterior.mean.flatten()
    assert SMALL.max_mean is not None
    ceiling = 0.5 * math.log(1 + (SMALL.max_mean / SMALL.min_std) ** 2)
    assert 0.2 < told(means, SMALL.min_std) < ceiling < 2.5


@pytest.mark.parametrize("config", [{"min_std": 0.0}, {"min_std": -1.0}, {"max_mean": 0.1}, {"max_mean": -1.0}])
def test_sizes_that_tell_nothing_are_refused(config: dict[str, float]) -> None:
    with pytest.raises(AimeError, match=r"encoder\.(min_std|max_mean) is .*; expected"):
        EncoderConfig(**config)  # type: ignore[arg-type]


def test_a_run_of_before_keeps_its_free_means() -> None:
    saved = to_plain(EncoderConfig(channels=24, min_std=0.02))
    assert isinstance(saved, dict)
    del saved["max_mean"]
    config = from_plain(EncoderConfig, saved, "config.yaml")
    assert config == EncoderConfig(channels=24, max_mean=None, min_std=0.02)
