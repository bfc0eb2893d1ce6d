from __future__ import annotations

import torch
from torch import distributions as reference

from aime.primitives.distributions import DiagonalGaussian, GaussianMixture


def mixture(rows: int = 6, components: int = 4, width: int = 3, dtype: torch.dtype = torch.float32) -> GaussianMixture:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(rows, components, generator=generator, dtype=torch.float64).log_softmax(-1)
    means = 2 * torch.randn(rows, components, width, generator=generator, dtype=torch.float64)
    stds = torch.rand(rows, components, width, generator=generator, dtype=torch.float64) + 0.2
    return GaussianMixture(weights.to(dtype), means.to(dtype), stds.to(dtype))


def torch_mixture(p: GaussianMixture) -> reference.MixtureSameFamily:
    return reference.MixtureSameFamily(
        reference.Categorical(logits=p.log_weights),
        reference.Independent(reference.Normal(p.means, p.stds), 1),
    )


def test_density_and_mean_match_torch() -> None:
    p = mixture()
    value = torch.randn(6, 3)
    torch.testing.assert_close(p.log_prob(value), torch_mixture(p).log_prob(value))
    torch.testing.assert_close(p.mean, torch_mixture(p).mean)
    torch.testing.assert_close(p.weights.sum(-1), torch.ones(6))


def test_density_takes_samples_in_front_of_the_rows() -> None:
    p = mixture()
    values = torch.randn(7, 6, 3)
    torch.testing.assert_close(p.log_prob(values)[3], p.log_prob(values[3]))


def test_responsibilities_are_bayes_rule() -> None:
    p = mixture()
    value = torch.randn(6, 3)
    joint = p.weights * torch.stack(
        [DiagonalGaussian(p.means[:, k], p.stds[:, k]).log_prob(value).exp() for k in range(4)], dim=-1
    )
    torch.testing.assert_close(p.responsibilities(value), joint / joint.sum(-1, keepdim=True))
    # far from every component densities underflow, responsibilities do not
    far = p.responsibilities(torch.full((6, 3), 1e4))
    torch.testing.assert_close(far.sum(-1), torch.ones(6))


def test_mode_is_the_heaviest_components_mean() -> None:
    p = mixture()
    value, component = p.mode()
    assert torch.equal(component, p.log_weights.argmax(-1))
    for row, k in enumerate(component.tolist()):
        assert torch.equal(value[row], p.means[row, k])


def test_samples_follow_weights_and_components() -> None:
    torch.manual_seed(0)
    p = mixture(rows=1, width=2)
    many = GaussianMixture(*(each.expand(60_000, *each.shape[1:]) for each in p))
    value, component = many.sample()
    assert not value.requires_grad
    shares = torch.bincount(component, minlength=4) / 60_000
    torch.testing.assert_close(shares, p.weights[0], rtol=0, atol=0.01)
    for k in range(4):
        chosen = value[component == k]
        torch.testing.assert_close(chosen.mean(0), p.means[0, k], rtol=0, atol=0.06)
        torch.testing.assert_close(chosen.std(0), p.stds[0, k], rtol=0.05, atol=0)


def test_density_has_finite_gradients_where_weights_vanish_and_values_are_far() -> None:
    p = GaussianMixture(
        torch.tensor([0.0, -2000.0]).requires_grad_(),
        torch.zeros(2, 36).requires_grad_(),
        torch.full((2, 36), 0.05).requires_grad_(),
    )
    density = p.log_prob(torch.full((36,), 100.0))
    assert density.isfinite()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(density, p))


def test_float32_agrees_with_float64_and_autocast_changes_nothing() -> None:
    single, double = mixture(width=36), mixture(width=36, dtype=torch.float64)
    value = torch.randn(6, 36)
    plain = single.log_prob(value)
    torch.testing.assert_close(plain, double.log_prob(value.double()).float(), rtol=1e-5, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(single.log_prob(value), plain)
        assert torch.equal(single.responsibilities(value), torch.softmax(single._joint(value), dim=-1))
        assert single.sample().value.dtype == torch.float32
    lowered = GaussianMixture(*(each.bfloat16() for each in single))
    assert lowered.log_prob(value.bfloat16()).dtype == torch.float32
