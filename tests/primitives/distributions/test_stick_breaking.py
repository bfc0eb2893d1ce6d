from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from tests.primitives.distributions.references import close_enough, kl_to_beta

from aime.primitives.distributions import GammaPosterior, Kumaraswamy, log_mixture_weights, stick_breaking_kl


def test_weights_are_the_products_of_the_sticks() -> None:
    v = torch.tensor([[0.2, 0.5, 0.9], [0.7, 0.1, 0.3]], dtype=torch.float64)
    expected = torch.stack([v[:, 0], v[:, 1] * (1 - v[:, 0]), v[:, 2] * (1 - v[:, 0]) * (1 - v[:, 1]),
                            (1 - v[:, 0]) * (1 - v[:, 1]) * (1 - v[:, 2])], dim=-1)  # fmt: skip
    torch.testing.assert_close(log_mixture_weights(v.log(), torch.log1p(-v)).exp(), expected)


@given(st.lists(st.tuples(st.floats(-3.9, 3.9), st.floats(-3.9, 3.9)), min_size=0, max_size=14), st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_weights_of_sampled_sticks_sum_to_one(parameters: list[tuple[float, float]], seed: int) -> None:
    torch.manual_seed(seed)
    log_a, log_b = torch.tensor(parameters, dtype=torch.float32).reshape(-1, 2).unbind(-1)
    log_weights = log_mixture_weights(*Kumaraswamy(log_a, log_b).rsample())
    assert log_weights.shape == (len(parameters) + 1,)
    assert log_weights.isfinite().all()
    assert float(log_weights.exp().sum()) == pytest.approx(1, abs=2e-6)


def test_weights_of_mean_sticks_are_the_expected_weights() -> None:
    torch.manual_seed(0)
    sticks = Kumaraswamy(torch.tensor([0.5, -1.0, 1.0]), torch.tensor([1.0, 0.3, -0.5]))
    expected = log_mixture_weights(*sticks.mean_stick()).exp()
    many = Kumaraswamy(sticks.log_a.expand(40_000, 3), sticks.log_b.expand(40_000, 3))
    sampled = log_mixture_weights(*many.rsample()).exp().mean(0)
    torch.testing.assert_close(sampled, expected, rtol=0, atol=0.01)


@pytest.mark.parametrize(("log_concentration", "log_rate"), [(0.0, 0.0), (1.5, -0.5), (-0.7, 0.7)])
def test_kl_is_the_expectation_over_alpha_of_the_sticks_kl(log_concentration: float, log_rate: float) -> None:
    parameters = [(0.1, 4.0), (1.0, 0.1), (6.0, 20.0)]
    concentration = GammaPosterior(torch.tensor(log_concentration), torch.tensor(log_rate))
    alpha = stats.gamma(math.exp(log_concentration), scale=math.exp(-log_rate))

    def expectation(a: float, b: float) -> float:
        # the reference KL is evaluated at many α and integrated: nothing is assumed of its form in α
        nodes = np.linspace(math.log(1e-12), math.log(alpha.ppf(1 - 1e-12)), 300)
        values = [math.exp(y) * alpha.pdf(math.exp(y)) * kl_to_beta(a, b, math.exp(y)) for y in nodes]
        return float(integrate.simpson(values, x=nodes))

    log_a, log_b = torch.tensor(parameters).log().T
    value = stick_breaking_kl(Kumaraswamy(log_a, log_b), concentration)
    assert float(value) == pytest.approx(sum(expectation(a, b) for a, b in parameters), rel=1e-4)


def test_kl_sums_over_sticks_and_broadcasts_over_rows() -> None:
    torch.manual_seed(0)
    sticks = Kumaraswamy(torch.randn(4, 3, 5), torch.randn(4, 3, 5))
    concentration = GammaPosterior(torch.randn(4, 3), torch.randn(4, 3))
    value = stick_breaking_kl(sticks, concentration)
    assert value.shape == (4, 3)
    row = sum(
        stick_breaking_kl(
            Kumaraswamy(sticks.log_a[1, 2, k : k + 1], sticks.log_b[1, 2, k : k + 1]),
            GammaPosterior(concentration.log_concentration[1, 2], concentration.log_rate[1, 2]),
        )
        for k in range(5)
    )
    torch.testing.assert_close(value[1, 2], row)
    empty = torch.zeros(4, 3, 0)
    assert torch.equal(stick_breaking_kl(Kumaraswamy(empty, empty), concentration), torch.zeros(4, 3))


def test_kl_vanishes_where_the_sticks_equal_their_prior_and_is_never_negative() -> None:
    sharp = GammaPosterior(torch.tensor(math.log(50.0)), torch.tensor(math.log(50.0)))
    at_prior = stick_breaking_kl(Kumaraswamy(torch.zeros(1), torch.zeros(1)), sharp)
    # α is near 1, not exactly: what is left is log E[α] - E[log α]
    assert close_enough(at_prior.numpy(), (sharp.mean.log() - sharp.mean_log).numpy())
    torch.manual_seed(0)
    sticks = Kumaraswamy(*(torch.rand(2, 2000, 1) * 7.8 - 3.9))
    spread = GammaPosterior(*(torch.rand(2, 2000) * 7.8 - 3.9))
    assert (stick_breaking_kl(sticks, spread) >= 0).all()
