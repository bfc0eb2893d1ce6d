from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributions as reference

from aime.primitives.distributions import DiagonalGaussian
from aime.primitives.distributions.gaussian import bounded_std, raw_of_std


def pair() -> tuple[DiagonalGaussian, DiagonalGaussian]:
    torch.manual_seed(0)
    return (
        DiagonalGaussian(torch.randn(3, 4, 5), torch.rand(3, 4, 5) + 0.1),
        DiagonalGaussian(torch.randn(3, 4, 5), torch.rand(3, 4, 5) + 0.1),
    )


def torch_normal(gaussian: DiagonalGaussian) -> reference.Independent:
    return reference.Independent(reference.Normal(gaussian.mean, gaussian.std), 1)


def test_density_entropy_and_kl_match_torch() -> None:
    first, second = pair()
    value = torch.randn(3, 4, 5)
    torch.testing.assert_close(first.log_prob(value), torch_normal(first).log_prob(value))
    torch.testing.assert_close(first.entropy(), torch_normal(first).entropy())
    torch.testing.assert_close(first.kl(second), reference.kl_divergence(torch_normal(first), torch_normal(second)))


def test_samples_have_the_mean_and_spread_and_carry_gradients() -> None:
    torch.manual_seed(0)
    mean, std = torch.tensor([1.0, -2.0], requires_grad=True), torch.tensor([0.5, 3.0], requires_grad=True)
    samples = DiagonalGaussian(mean.expand(50_000, 2), std.expand(50_000, 2)).rsample()
    torch.testing.assert_close(samples.mean(0), mean, rtol=0, atol=0.05)
    torch.testing.assert_close(samples.std(0), std, rtol=0.02, atol=0)
    by_mean, by_std = torch.autograd.grad(samples[0].sum(), (mean, std))
    torch.testing.assert_close(by_mean, torch.ones(2))
    torch.testing.assert_close(by_std, (samples[0] - mean) / std, rtol=1e-4, atol=1e-5)


def test_unflatten_and_detach_keep_the_numbers() -> None:
    first, _ = pair()
    flat = DiagonalGaussian(first.mean.flatten(0, 1).requires_grad_(), first.std.flatten(0, 1))
    again = flat.unflatten(3).detach()
    assert torch.equal(again.mean, first.mean)
    assert torch.equal(again.std, first.std)
    assert not again.mean.requires_grad


def test_bfloat16_parameters_are_promoted_and_autocast_changes_nothing() -> None:
    first, second = pair()
    lowered = DiagonalGaussian(first.mean.bfloat16(), first.std.bfloat16())
    assert lowered.log_prob(second.mean.bfloat16()).dtype == torch.float32
    assert lowered.rsample().dtype == torch.float32
    plain = torch.stack([first.log_prob(second.mean), first.entropy(), first.kl(second)])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(torch.stack([first.log_prob(second.mean), first.entropy(), first.kl(second)]), plain)


@given(st.floats(-1e4, 1e4), st.floats(0.06, 4.9))
def test_bounded_std_stays_in_its_bounds_and_inverts(raw: float, std: float) -> None:
    value = float(bounded_std(torch.tensor(raw, dtype=torch.float64), 0.05, 5.0))
    assert 0.05 * (1 - 1e-12) <= value <= 5.0 * (1 + 1e-12)
    again = float(bounded_std(torch.tensor(raw_of_std(std, 0.05, 5.0), dtype=torch.float64), 0.05, 5.0))
    assert math.isclose(again, std, rel_tol=1e-9)
    assert again == pytest.approx(std)
