from __future__ import annotations

import math

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.primitives.distributions.references import close_enough, kl_to_beta, kumaraswamy_expectation

from aime.primitives.distributions import Kumaraswamy
from aime.primitives.distributions.expected_log_complement import (
    LOG_LIMIT,
    expected_log_complement,
    integrate_log_complement,
)
from aime.primitives.distributions.kumaraswamy import log1mexp

CORNERS = [(a, b) for a in (0.02, 0.3, 1.0, 7.0, 50.0) for b in (0.02, 0.3, 1.0, 7.0, 50.0)]
parameter = st.floats(-1, 1, width=32).map(lambda share: float(torch.tensor(share * LOG_LIMIT)))
"""Log parameters from log 0.02 to log 50, rounded to float32."""


def log_grid(dtype: torch.dtype) -> Kumaraswamy:
    return Kumaraswamy(*torch.tensor(CORNERS, dtype=torch.float64).log().clamp(-LOG_LIMIT, LOG_LIMIT).to(dtype).T)


def exact(log_parameter: torch.Tensor) -> mpmath.mpf:
    return mpmath.exp(mpmath.mpf(float(log_parameter)))


@given(parameter, parameter, st.floats(-4, 4, width=32))
@example(0.0, float(torch.tensor(-LOG_LIMIT)), -4.0)  # the edge, rounded outwards, where terms near 50 cancel
@settings(max_examples=60, deadline=None)
def test_kl_to_beta_matches_quadrature(log_a: float, log_b: float, log_alpha: float) -> None:
    reference = kl_to_beta(math.exp(log_a), math.exp(log_b), math.exp(log_alpha))
    sticks = Kumaraswamy(torch.tensor(log_a), torch.tensor(log_b))
    alpha = torch.tensor(log_alpha, dtype=torch.float64)
    value = sticks.kl_to_beta(alpha.exp(), alpha)
    assert value.dtype == torch.float32
    assert close_enough(value.numpy(), reference), (float(value), reference)


@pytest.mark.parametrize(("a", "b"), CORNERS)
@pytest.mark.parametrize("alpha", [0.02, 1.0, 50.0])
def test_kl_to_beta_matches_quadrature_at_the_corners(a: float, b: float, alpha: float) -> None:
    sticks = Kumaraswamy(torch.tensor(a, dtype=torch.float64).log(), torch.tensor(b, dtype=torch.float64).log())
    value = sticks.kl_to_beta(torch.tensor(alpha, dtype=torch.float64), torch.tensor(math.log(alpha)).double())
    reference = kl_to_beta(a, b, alpha) + math.log(alpha) - float(torch.tensor(math.log(alpha)))
    assert close_enough(value.numpy(), reference)


def test_kl_is_the_closed_form_at_a_equal_to_one() -> None:
    """KL(Beta(1, b) ‖ Beta(1, β)) = log(b/β) + β/b - 1, where the truncated series is off by a factor of two."""
    log_b = torch.linspace(-LOG_LIMIT, LOG_LIMIT, 41, dtype=torch.float64)
    for beta in (0.02, 1.0, 5.0, 50.0):
        beta_tensor = torch.tensor(beta, dtype=torch.float64)
        value = Kumaraswamy(torch.zeros_like(log_b), log_b).kl_to_beta(beta_tensor, beta_tensor.log())
        b = log_b.exp()
        torch.testing.assert_close(value, torch.log(b / beta) + beta / b - 1, rtol=1e-8, atol=1e-8)


def test_kl_gradients_match_finite_differences_of_the_quadrature() -> None:
    step = 1e-4
    for log_a, log_b in [(-3.5, -3.5), (-3.0, 3.0), (0.0, 0.0), (1.5, -2.0), (3.5, 3.5), (3.8, -3.8), (-0.7, 1.2)]:
        leaves = torch.tensor([log_a, log_b], dtype=torch.float64, requires_grad=True)
        alpha = torch.tensor(3.0, dtype=torch.float64)
        (gradient,) = torch.autograd.grad(Kumaraswamy(leaves[0], leaves[1]).kl_to_beta(alpha, alpha.log()), leaves)
        for axis, (da, db) in enumerate([(step, 0.0), (0.0, step)]):
            ahead = kl_to_beta(math.exp(log_a + da), math.exp(log_b + db), 3.0)
            behind = kl_to_beta(math.exp(log_a - da), math.exp(log_b - db), 3.0)
            assert float(gradient[axis]) == pytest.approx((ahead - behind) / (2 * step), rel=1e-4, abs=1e-5)


def test_expected_log_complement_matches_quadrature_and_its_own_integral() -> None:
    sticks = log_grid(torch.float64)
    value = expected_log_complement(*sticks)
    torch.testing.assert_close(value, integrate_log_complement(*sticks), rtol=0, atol=1e-8)
    for each, (a, b) in zip(value.tolist(), CORNERS, strict=True):
        assert each == pytest.approx(kumaraswamy_expectation(lambda s, v, rest: rest, a, b), rel=1e-8, abs=1e-8)


def test_expected_log_complement_is_nan_outside_of_its_domain_only() -> None:
    edge = torch.tensor([LOG_LIMIT, -LOG_LIMIT])  # rounded to float32, which may be a little outside
    assert expected_log_complement(edge, edge).isfinite().all()
    beyond = torch.tensor([LOG_LIMIT + 0.01, -5.0])
    assert expected_log_complement(beyond, torch.zeros(2)).isnan().all()
    assert expected_log_complement(torch.zeros(2), beyond).isnan().all()


def test_expected_log_complement_is_sound_for_autograd_and_compilers() -> None:
    log_a, log_b = (torch.rand(2, 5, dtype=torch.float64) * 6 - 3).requires_grad_().unbind(0)
    assert torch.autograd.gradcheck(expected_log_complement, (log_a, log_b))
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    operation = torch.ops.aime.expected_log_complement.default
    torch.library.opcheck(operation, (log_a, log_b), test_utils=checks)


@given(parameter, parameter, st.floats(-12, 6, width=32))
@settings(max_examples=100, deadline=None)
def test_log_prob_matches_the_density_in_many_digits(log_a: float, log_b: float, log_minus_log_v: float) -> None:
    log_v = -torch.tensor(log_minus_log_v).exp()
    value = Kumaraswamy(torch.tensor(log_a), torch.tensor(log_b)).log_prob(log_v)
    with mpmath.workdps(60):
        a, b, v = mpmath.exp(log_a), mpmath.exp(log_b), mpmath.exp(mpmath.mpf(float(log_v)))
        terms = [mpmath.log(a), mpmath.log(b), (a - 1) * mpmath.log(v), (b - 1) * mpmath.log(1 - v**a)]
        reference, scale = float(sum(terms)), float(sum(abs(term) for term in terms))
    assert float(value) == pytest.approx(reference, abs=2e-6 * scale + 1e-6)


def test_density_integrates_to_one() -> None:
    log_v = torch.linspace(-60, -1e-6, 400_001, dtype=torch.float64)
    for a, b in [(0.5, 2.0), (1.0, 1.0), (3.0, 1.5), (2.0, 20.0)]:
        sticks = Kumaraswamy(torch.tensor(a, dtype=torch.float64).log(), torch.tensor(b, dtype=torch.float64).log())
        density = (sticks.log_prob(log_v) + log_v).exp()
        assert float(torch.trapezoid(density, log_v)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mean_and_its_complement_match_many_digits(dtype: torch.dtype) -> None:
    sticks = log_grid(dtype)
    mean, stick = sticks.mean, sticks.mean_stick()
    for i in range(len(CORNERS)):
        with mpmath.workdps(40):
            a, b = exact(sticks.log_a[i]), exact(sticks.log_b[i])
            reference = b * mpmath.beta(1 + 1 / a, b)
            log_rest = float(mpmath.log(1 - reference))
        assert float(stick.log_v[i]) == pytest.approx(float(mpmath.log(reference)), rel=1e-6)
        assert float(mean[i]) == pytest.approx(float(reference), rel=2e-5)
        assert float(stick.log_one_minus_v[i]) == pytest.approx(log_rest, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("a", "b"), CORNERS)
def test_samples_follow_the_distribution_function(a: float, b: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    sticks = Kumaraswamy(*(torch.full((4000,), math.log(each), dtype=dtype) for each in (a, b)))
    log_v, log_rest = (each.double().numpy() for each in sticks.rsample())
    # the survival probability (1-v^a)^b is uniform; near v = 1 only log(1-v) still resolves v
    near_one = log_rest < -20
    with np.errstate(divide="ignore"):
        log_power_rest = np.where(near_one, math.log(a) + log_rest, np.log(-np.expm1(a * log_v)))
    assert stats.kstest(np.exp(b * log_power_rest), "uniform").pvalue > 1e-3


@pytest.mark.parametrize(("a", "b"), CORNERS)
def test_both_logs_of_a_sample_have_their_expectations(a: float, b: float) -> None:
    torch.manual_seed(1)
    count = 20_000
    sample = Kumaraswamy(torch.full((count,), math.log(a)), torch.full((count,), math.log(b))).rsample()
    for values, reference in [
        (sample.log_v, kumaraswamy_expectation(lambda s, log_v, log_rest: log_v, a, b)),
        (sample.log_one_minus_v, kumaraswamy_expectation(lambda s, log_v, log_rest: log_rest, a, b)),
    ]:
        assert values.isfinite().all()
        assert (values <= 0).all()
        error = values.double().std() / math.sqrt(count)
        assert abs(float(values.double().mean()) - reference) < 5 * float(error) + 1e-6


def test_the_two_logs_of_a_sample_belong_together() -> None:
    torch.manual_seed(2)
    sticks = Kumaraswamy(*(torch.rand(2, 5000, dtype=torch.float64) * 3 - 1.5))
    log_v, log_rest = sticks.rsample()
    torch.testing.assert_close(log_v.exp() + log_rest.exp(), torch.ones_like(log_v), rtol=0, atol=1e-14)


def test_sample_gradients_are_the_derivatives_of_the_inverse_distribution_function() -> None:
    parameters = torch.tensor([[-1.0, 0.0, 2.0], [1.0, 0.5, -2.0]], dtype=torch.float64, requires_grad=True)

    def sample(leaves: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return torch.stack(Kumaraswamy(*leaves.unbind(0)).rsample())

    assert torch.autograd.gradcheck(sample, (parameters,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_the_extremes(dtype: torch.dtype) -> None:
    torch.manual_seed(4)
    log_a, log_b = (each.repeat(2000, 1).requires_grad_() for each in log_grid(dtype))
    sticks = Kumaraswamy(log_a, log_b)
    sample = sticks.rsample()
    one = torch.ones((), dtype=dtype)
    for result in (*sample, *sticks.mean_stick(), sticks.kl_to_beta(5 * one, one)):
        gradients = torch.autograd.grad(result.sum(), (log_a, log_b), retain_graph=True)
        assert result.isfinite().all()
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_log1mexp_is_accurate_at_both_ends() -> None:
    x = torch.logspace(-30, 1.9, 60)
    for value, each in zip(log1mexp(x).tolist(), x.tolist(), strict=True):
        with mpmath.workdps(60):
            reference = float(mpmath.log(1 - mpmath.exp(-mpmath.mpf(each))))
        assert value == pytest.approx(reference, rel=1e-6)


def test_float32_agrees_with_float64_and_autocast_changes_nothing() -> None:
    single = log_grid(torch.float32)
    double = Kumaraswamy(single.log_a.double(), single.log_b.double())
    log_v = torch.full_like(single.log_a, -0.7)
    alpha = torch.tensor(2.5)

    def everything(sticks: Kumaraswamy) -> torch.Tensor:
        torch.manual_seed(5)
        sample = sticks.rsample()
        return torch.stack([sticks.mean, sticks.log_prob(log_v), sticks.kl_to_beta(alpha, alpha.log()), *sample])

    plain = everything(single)
    torch.testing.assert_close(plain[:3], everything(double)[:3].float(), rtol=2e-5, atol=2e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(everything(single), plain)
    assert everything(Kumaraswamy(single.log_a.bfloat16(), single.log_b.bfloat16())).dtype == torch.float32
