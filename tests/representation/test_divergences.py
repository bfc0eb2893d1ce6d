from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from aime.primitives.distributions import DiagonalGaussian, GammaPosterior, GaussianMixture, Kumaraswamy
from aime.representation import divergences
from aime.representation.divergences import (
    clamped_kl,
    effective_components,
    hierarchical_kl,
    mixture_kl,
    stick_breaking_kl,
    weights_entropy,
)


def posterior(*shape: int) -> DiagonalGaussian:
    return DiagonalGaussian(torch.randn(shape).requires_grad_(), (torch.rand(shape) + 0.2).requires_grad_())


def prior(*shape: int, components: int = 3) -> GaussianMixture:
    *rows, width = shape
    return GaussianMixture(
        torch.randn(*rows, components).log_softmax(-1).requires_grad_(),
        (2 * torch.randn(*rows, components, width)).requires_grad_(),
        (torch.rand(*rows, components, width) + 0.3).requires_grad_(),
    )


Distribution = TypeVar("Distribution", DiagonalGaussian, GaussianMixture)


def many(distribution: Distribution, count: int) -> Distribution:
    return type(distribution)(*(each.detach().expand(count, *each.shape) for each in distribution))


def test_mixture_kl_matches_monte_carlo() -> None:
    torch.manual_seed(0)
    q, p = posterior(4), prior(4)
    count = 100_000
    estimates = mixture_kl(many(q, count), many(p, count), many(q, count).rsample())
    ratios = torch.distributions.Independent(torch.distributions.Normal(q.mean, q.std), 1)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=p.log_weights),
        torch.distributions.Independent(torch.distributions.Normal(p.means, p.stds), 1),
    )
    z = ratios.sample((count,))
    reference = (ratios.log_prob(z) - mixture.log_prob(z)).detach()
    error = math.sqrt(float(estimates.var() + reference.var()) / count)
    assert abs(float(estimates.mean() - reference.mean())) < 4 * error
    assert error < 0.02 * float(reference.mean())


def test_mixture_kl_matches_quadrature_in_one_dimension() -> None:
    q = DiagonalGaussian(torch.tensor([0.3]).double(), torch.tensor([0.8]).double())
    p = GaussianMixture(
        torch.tensor([0.2, 0.8]).double().log(),
        torch.tensor([[-1.0], [2.0]]).double(),
        torch.tensor([[0.5], [1.5]]).double(),
    )
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    z = q.mean + q.std * torch.from_numpy(nodes)[:, None]
    value = (torch.from_numpy(weights / weights.sum()) * mixture_kl(q, p, z)).sum()

    normal = stats.norm(float(q.mean), float(q.std))

    def integrand(x: float) -> float:
        density = 0.2 * stats.norm(-1, 0.5).pdf(x) + 0.8 * stats.norm(2, 1.5).pdf(x)
        return normal.pdf(x) * (normal.logpdf(x) - math.log(density))

    assert float(value) == pytest.approx(integrate.quad(integrand, -8, 8, points=[-1, 0, 1, 2])[0], rel=1e-5)


def test_mixture_of_one_component_gives_the_closed_form_of_two_gaussians() -> None:
    torch.manual_seed(1)
    q = DiagonalGaussian(torch.randn(5, 1).double(), torch.rand(5, 1).double() + 0.1)
    other = DiagonalGaussian(torch.randn(5, 1).double(), torch.rand(5, 1).double() + 0.1)
    p = GaussianMixture(torch.zeros(5, 1).double(), other.mean[:, None], other.std[:, None])
    # three-node Gauss-Hermite quadrature is exact for the quadratic in z that the log density is
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    values = torch.stack([mixture_kl(q, p, q.mean + q.std * node) for node in nodes])
    expectation = (torch.from_numpy(weights / weights.sum())[:, None] * values).sum(0)
    torch.testing.assert_close(expectation, q.kl(other), rtol=1e-10, atol=1e-10)


def test_clamped_kl_has_no_gradient_from_padding() -> None:
    torch.manual_seed(2)
    q, p = posterior(2, 3, 4), prior(2, 3, 4)
    valid = torch.tensor([[True, True, True], [True, False, False]])
    for gradient in torch.autograd.grad(clamped_kl(q, p, q.rsample(), valid), (*q, *p)):
        assert gradient[0].any()
        assert not gradient[1, 1:].any()


def test_clamped_kl_is_the_divergence_with_its_gradient() -> None:
    torch.manual_seed(3)
    mean, std = torch.randn(4, 2).double().requires_grad_(), (torch.rand(4, 2).double() + 0.2).requires_grad_()
    q = DiagonalGaussian(mean, std)
    p = GaussianMixture(torch.zeros(4, 1).double(), torch.randn(4, 1, 2).double(), torch.rand(4, 1, 2).double() + 0.3)
    normal, other = torch.distributions.Normal(mean, std), torch.distributions.Normal(p.means[:, 0], p.stds[:, 0])
    exact = torch.distributions.kl_divergence(normal, other).sum(-1).mean()
    # three nodes in each of two dimensions are exact for the log of a Gaussian, which is quadratic
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    parts = []
    for i, j in np.ndindex(3, 3):
        z = mean + std * torch.tensor([nodes[i], nodes[j]])
        share = weights[i] * weights[j] / weights.sum() ** 2
        kl = clamped_kl(q, p, z, torch.ones(4, dtype=torch.bool))
        parts.append(share * kl)
    found = torch.stack(parts).sum()
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-10)
    for mine, theirs in zip(*(torch.autograd.grad(each, (mean, std)) for each in (found, exact)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_below_the_free_nats_there_is_no_gradient_and_the_same_value(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    q, p = posterior(2, 3, 4), prior(2, 3, 4)
    latents, valid = q.rsample(), torch.ones(2, 3, dtype=torch.bool)
    kl = clamped_kl(q, p, latents, valid).detach()
    for free, learns in ((float(kl) - 0.01, True), (float(kl) + 0.01, False)):
        monkeypatch.setattr(divergences, "FREE_NATS", free)
        found = clamped_kl(q, p, latents, valid)
        assert found == kl
        gradients = torch.autograd.grad(found, (*q, *p), retain_graph=True, materialize_grads=True)
        assert all(bool(gradient.any()) == learns for gradient in gradients)


def test_hierarchical_kl_adds_what_the_concentration_costs() -> None:
    sticks = Kumaraswamy(torch.randn(2, 4), torch.randn(2, 4))
    concentration = GammaPosterior(torch.tensor([0.0, 1.0]), torch.tensor([0.0, -1.0]))
    added = hierarchical_kl(sticks, concentration) - stick_breaking_kl(sticks, concentration)
    assert float(added[0]) == pytest.approx(0, abs=1e-5)
    one = torch.ones(())
    gamma = torch.distributions.Gamma(one * math.e, one / math.e)
    reference = torch.distributions.kl_divergence(gamma, torch.distributions.Gamma(one, one))
    assert float(added[1]) == pytest.approx(float(reference), rel=1e-4)


def test_entropy_is_that_of_the_averaged_weights() -> None:
    # each row is certain, but of another component: the average is spread over two of three
    weights, every = torch.tensor([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]]), torch.ones(2, 1, dtype=torch.bool)
    log_weights = weights.clamp_min(1e-30).log().requires_grad_()
    entropy = weights_entropy(log_weights, every)
    assert float(entropy.detach()) == pytest.approx(math.log(2), rel=1e-6)
    assert torch.autograd.grad(entropy, log_weights)[0].isfinite().all()
    assert float(effective_components(weights, every)) == pytest.approx(2, rel=1e-6)
    even, all_of_them = torch.full((4, 5, 15), 1 / 15), torch.ones(4, 5, dtype=torch.bool)
    assert float(effective_components(even, all_of_them)) == pytest.approx(15, rel=1e-5)


def test_entropy_leaves_padding_out() -> None:
    torch.manual_seed(0)
    spread, valid = torch.randn(3, 4, 6).log_softmax(-1).requires_grad_(), torch.rand(3, 4) < 0.6
    reference = stats.entropy(spread.detach().exp().double().numpy()[valid.numpy()].mean(0))
    entropy = weights_entropy(spread, valid)
    assert float(entropy.detach()) == pytest.approx(reference, rel=1e-5)
    assert float(effective_components(spread.detach().exp(), valid)) == pytest.approx(math.exp(reference), rel=1e-5)
    (gradient,) = torch.autograd.grad(entropy, spread)
    assert gradient[valid].any() and not gradient[~valid].any()
    nowhere = torch.zeros_like(valid)
    assert float(weights_entropy(spread.detach(), nowhere)) == 0


def test_entropy_has_finite_gradients_for_weights_that_underflow() -> None:
    log_weights = torch.tensor([[0.0, -3000.0]]).requires_grad_()
    entropy = weights_entropy(log_weights, torch.ones(1, dtype=torch.bool))
    assert float(entropy.detach()) == 0
    assert torch.autograd.grad(entropy, log_weights)[0].isfinite().all()
