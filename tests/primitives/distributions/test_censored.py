from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal

from aime.primitives.distributions import CensoredGaussian, CensoredMixture

LOCATIONS = st.floats(-4, 4)
SCALES = st.floats(0.05, 3)


def one(location: float, scale: float) -> CensoredGaussian:
    return CensoredGaussian(torch.tensor([location], dtype=torch.float64), torch.tensor([scale], dtype=torch.float64))


def integrate(p: CensoredGaussian, function: object) -> Tensor:
    """E function(value): a fine quadrature of the density within the bounds, and the two point masses."""
    inside = torch.linspace(-1 + 1.1e-6, 1 - 1.1e-6, 200_001).double()
    values = torch.cat([torch.tensor([-1.0, 1.0]).double(), inside])
    weights = p.log_prob(values[:, None]).exp()
    told = weights * function(values, weights.log())  # type: ignore[operator]
    return told[:2].sum() + torch.trapezoid(told[2:], inside)


@given(LOCATIONS, SCALES)
def test_density_masses_mean_and_entropy_against_quadrature(location: float, scale: float) -> None:
    p = one(location, scale)
    assert float(integrate(p, lambda values, logs: 1.0)) == pytest.approx(1, abs=1e-5)
    assert float(p.mean) == pytest.approx(float(integrate(p, lambda values, logs: values)), abs=1e-5)
    entropy = integrate(p, lambda values, logs: -torch.nan_to_num(logs, neginf=0.0))
    assert float(p.entropy()) == pytest.approx(float(entropy), abs=2e-4)


def test_the_masses_are_the_gaussian_tails() -> None:
    p = one(0.6, 0.5)
    tail = 1 - Normal(0.6, 0.5).cdf(torch.tensor(1.0))
    assert float(p.log_prob(torch.ones(1).double()).exp()) == pytest.approx(float(tail), abs=1e-6)
    assert p.mode == 0.6
    assert one(1.7, 0.5).mode == 1.0


def test_far_tails_stay_finite_with_their_gradients() -> None:
    location = torch.tensor([40.0, -40.0], requires_grad=True)
    p = CensoredGaussian(location, torch.full((2,), 0.05))
    for value in (-1.0, 0.0, 1.0):
        (gradient,) = torch.autograd.grad(p.log_prob(torch.full((2,), value)), location)
        assert gradient.isfinite().all(), value


def test_samples_are_bounded_and_have_the_mean_of_the_mixture() -> None:
    torch.manual_seed(0)
    weights = torch.tensor([0.3, 0.7]).log()
    p = CensoredMixture(weights, CensoredGaussian(torch.tensor([[-1.2], [0.7]]), torch.tensor([[0.3], [0.4]])))
    drawn = CensoredMixture(*_expanded(p, 200_000)).sample()
    assert drawn.abs().max() == 1
    assert float(drawn.mean()) == pytest.approx(float(p.mean), abs=0.005)
    assert float((drawn == -1).float().mean()) == pytest.approx(float(p.log_prob(-torch.ones(1)).exp()), abs=0.005)
    assert p.mode == pytest.approx(0.7)


def test_a_mixture_is_the_weighted_sum_of_densities() -> None:
    p = CensoredMixture(
        torch.tensor([0.25, 0.75]).log(),
        CensoredGaussian(torch.tensor([[-0.5, 0.2], [0.9, 0.1]]), torch.tensor([[0.2, 0.3], [0.4, 0.1]])),
    )
    value = torch.tensor([1.0, 0.15])
    parts = [CensoredGaussian(*(field[k] for field in p.components)).log_prob(value).exp() for k in range(2)]
    torch.testing.assert_close(p.log_prob(value).exp(), 0.25 * parts[0] + 0.75 * parts[1])


def _expanded(p: CensoredMixture, rows: int) -> tuple[Tensor, CensoredGaussian]:
    components = CensoredGaussian(*(field.expand(rows, *field.shape) for field in p.components))
    return p.log_weights.expand(rows, -1), components
