from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from aime.primitives.distributions import GammaPosterior

CASES = [(0.02, 0.02), (0.02, 50.0), (0.5, 2.0), (1.0, 1.0), (7.0, 0.3), (50.0, 50.0), (50.0, 0.02)]


def posterior(c: float, r: float, dtype: torch.dtype = torch.float32) -> GammaPosterior:
    return GammaPosterior(*torch.tensor([c, r], dtype=torch.float64).log().to(dtype).unbind())


@pytest.mark.parametrize(("c", "r"), CASES)
def test_expectations_match_quadrature(c: float, r: float) -> None:
    # over y = c·log α the density stays bounded for c < 1 too
    def expectation(function: Callable[[float], float]) -> float:
        def integrand(y: float) -> float:
            log_alpha = y / c
            log_density = c * math.log(r) - math.lgamma(c) + y - r * math.exp(log_alpha) - math.log(c)
            return math.exp(log_density) * function(log_alpha)

        top = c * math.log(stats.gamma(c, scale=1 / r).isf(1e-16))
        breaks = np.linspace(min(-40.0, top - 300), top, 40)
        return sum(integrate.quad(integrand, *panel, limit=200)[0] for panel in pairwise(breaks))

    q = posterior(c, r)
    assert float(q.mean) == pytest.approx(c / r, rel=1e-5)
    assert float(q.mean_log) == pytest.approx(expectation(lambda y: y), rel=1e-5, abs=1e-5)

    def log_ratio(log_alpha: float) -> float:
        log_q = c * math.log(r) - math.lgamma(c) + (c - 1) * log_alpha - r * math.exp(log_alpha)
        return log_q + math.exp(log_alpha)

    assert float(q.kl()) == pytest.approx(expectation(log_ratio), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("c", "r"), CASES)
def test_kl_matches_torch_and_has_finite_gradients(c: float, r: float) -> None:
    q = posterior(c, r, torch.float64)
    leaves = GammaPosterior(*(each.clone().requires_grad_() for each in q))
    one = torch.ones((), dtype=torch.float64)
    reference = torch.distributions.kl_divergence(
        torch.distributions.Gamma(q.log_concentration.exp(), q.log_rate.exp()), torch.distributions.Gamma(one, one)
    )
    torch.testing.assert_close(leaves.kl(), reference, rtol=1e-10, atol=1e-10)
    assert all(gradient.isfinite() for gradient in torch.autograd.grad(leaves.kl(), leaves))


def test_autocast_changes_nothing() -> None:
    q = posterior(3.0, 0.7)
    plain = torch.stack([q.mean, q.mean_log, q.kl()])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(torch.stack([q.mean, q.mean_log, q.kl()]), plain)
