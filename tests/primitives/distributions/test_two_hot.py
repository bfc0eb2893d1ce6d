from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from aime.primitives.distributions import TwoHot
from aime.primitives.distributions.two_hot import bins, even_bins, symexp, symlog

VALUES = st.floats(-1e6, 1e6)


@given(VALUES)
def test_symexp_inverts_symlog(value: float) -> None:
    exact = torch.tensor(value, dtype=torch.float64)
    assert float(symexp(symlog(exact))) == pytest.approx(value, rel=1e-9, abs=1e-12)


@given(VALUES, st.sampled_from([41, 64, 255]))
def test_the_best_distribution_of_a_number_has_it_as_its_mean(value: float, count: int) -> None:
    logits = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(TwoHot(logits).log_prob(torch.tensor(value, dtype=torch.float64)), logits)
    target = gradient + 1 / count
    assert float(target.sum()) == pytest.approx(1)
    assert (target > 1e-9).sum() <= 2
    best = TwoHot(target.detach().clamp_min(0).log())
    assert float(best.mean) == pytest.approx(value, rel=1e-5, abs=1e-6)


def test_even_logits_have_mean_zero_exactly_and_batches_keep_their_shape() -> None:
    assert TwoHot(torch.zeros(2, 3, 255)).mean.tolist() == [[0.0] * 3] * 2
    assert TwoHot(torch.zeros(2, 3, 255)).log_prob(torch.full((2, 3), 7.0)).shape == (2, 3)
    assert bins(255)[127] == 0


def test_what_lies_beyond_the_bins_counts_as_the_outermost() -> None:
    spread = TwoHot(torch.randn(63, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(spread.log_prob(torch.tensor(1e30)), spread.logits.log_softmax(-1)[-1])


@example(3.0, 255)
@given(st.floats(-3, 3), st.sampled_from([5, 64, 255]))
def test_bins_may_lie_evenly_up_to_any_number(value: float, count: int) -> None:
    even = even_bins(count, torch.tensor(3.0))
    assert even.tolist() == pytest.approx([-3 + 6 * place / (count - 1) for place in range(count)])
    logits = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    assert float(TwoHot(logits.detach(), even).mean) == 0
    (gradient,) = torch.autograd.grad(TwoHot(logits, even).log_prob(torch.tensor(value, dtype=torch.float64)), logits)
    target = gradient + 1 / count
    assert (target > 1e-9).sum() <= 2
    assert float((target * even).sum()) == pytest.approx(value, abs=1e-9)
