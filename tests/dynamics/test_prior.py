from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from aime.dynamics.prior import DirichletProcessPrior, PriorConfig
from aime.dynamics.single_gaussian_prior import SingleGaussianPrior
from aime.errors import AimeError
from aime.primitives.distributions import DiagonalGaussian
from aime.representation.divergences import hierarchical_kl, mixture_kl, stick_breaking_kl

BELIEF, CONTEXT, LATENT = 12, 7, 5


def dirichlet(components: int = 15) -> DirichletProcessPrior:
    torch.manual_seed(0)
    return DirichletProcessPrior(PriorConfig(components=components, hidden=32), BELIEF, CONTEXT, LATENT)


def single() -> SingleGaussianPrior:
    torch.manual_seed(0)
    return SingleGaussianPrior(PriorConfig(hidden=32), BELIEF, CONTEXT, LATENT)


def inputs(*rows: int, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Belief, last latent, last step and expected context."""
    generator = torch.Generator().manual_seed(1)
    belief, last_latent, last_step, context = (
        torch.randn(*rows, width, generator=generator) for width in (BELIEF, LATENT, LATENT, CONTEXT)
    )
    return scale * belief, last_latent, 0.2 * last_step, context


@pytest.mark.parametrize(("prior", "components"), [(dirichlet(), 15), (dirichlet(1), 1), (single(), 1)])
@pytest.mark.parametrize("rows", [(4,), (2, 3)])
def test_every_prior_gives_a_mixture_its_sticks_and_its_concentration(
    prior: nn.Module, components: int, rows: tuple[int, ...]
) -> None:
    output = prior(*inputs(*rows))
    assert output.mixture.log_weights.shape == (*rows, components)
    assert output.mixture.means.shape == output.mixture.stds.shape == (*rows, components, LATENT)
    assert output.sticks.log_a.shape == output.sticks.log_b.shape == (*rows, components - 1)
    assert output.concentration.log_rate.shape == output.concentration.log_concentration.shape == rows
    torch.testing.assert_close(output.mixture.weights.sum(-1), torch.ones(rows))
    kl = hierarchical_kl(output.sticks, output.concentration)
    assert kl.shape == rows
    assert (kl >= 0).all()


@pytest.mark.parametrize("prior", [dirichlet(), single()])
def test_every_parameter_has_a_gradient(prior: nn.Module) -> None:
    # what starts at zero would keep what is behind it from any
    for weight in prior.parameters():
        weight.data += 0.01 * torch.randn_like(weight)
    output = prior.train()(*inputs(8))
    latents = torch.zeros(8, LATENT)
    loss = -output.mixture.log_prob(latents).mean()
    loss = loss + hierarchical_kl(output.sticks, output.concentration).mean()
    loss.backward()
    for name, weight in prior.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.any(dim=-1).all(), name


@pytest.mark.parametrize("kind", [DirichletProcessPrior, SingleGaussianPrior])
def test_residual_layers_start_as_if_they_were_not_there(
    kind: type[DirichletProcessPrior] | type[SingleGaussianPrior],
) -> None:
    shallow, deep = (kind(PriorConfig(hidden=32, residuals=count), BELIEF, CONTEXT, LATENT).eval() for count in (0, 2))
    own = deep.state_dict()
    assert set(shallow.state_dict()) < set(own)
    deep.load_state_dict({**own, **shallow.state_dict()})
    for one, other in zip(shallow(*inputs(4)).mixture, deep(*inputs(4)).mixture, strict=True):
        assert torch.equal(one, other)


def test_components_start_apart_with_equal_weights_and_one_spread() -> None:
    belief, last_latent, *others = inputs(64)
    with torch.no_grad():
        mixture = dirichlet().eval()(belief, last_latent, *others).mixture
    torch.testing.assert_close(mixture.weights.mean(0), torch.full((15,), 1 / 15), rtol=0.2, atol=0)
    start = torch.full((15, LATENT), PriorConfig().start_std)
    torch.testing.assert_close(mixture.stds.mean(0), start, rtol=0.2, atol=0)
    distances = torch.cdist(mixture.means[0], mixture.means[0]) + 10 * torch.eye(15)
    assert float(distances.min()) > 0.4 * PriorConfig().mean_spread
    offsets = mixture.means - last_latent[:, None]
    assert float(offsets.std()) == pytest.approx(PriorConfig().mean_spread, rel=0.25)


@pytest.mark.parametrize("prior", [dirichlet(), single()])
def test_the_means_start_from_the_last_latent(prior: nn.Module) -> None:
    belief, last_latent, *others = inputs(1)
    by_last_latent = torch.autograd.functional.jacobian(
        lambda latent: prior.eval()(belief, latent, *others).mixture.mean[0], last_latent
    )
    torch.testing.assert_close(by_last_latent[:, 0], torch.eye(LATENT), rtol=0, atol=0.1)


def test_more_components_than_the_largest_stick_parameter_still_start_usable() -> None:
    mixture = dirichlet(80).eval()(*inputs(4)).mixture
    assert mixture.weights.isfinite().all()
    assert float(mixture.weights.detach().max()) < 0.1


def test_sticks_are_sampled_in_training_and_averaged_in_eval() -> None:
    prior, read = dirichlet(), inputs(1)
    assert not torch.equal(prior.train()(*read).mixture.log_weights, prior(*read).mixture.log_weights)
    expected = prior.eval()(*read).mixture.weights
    assert torch.equal(expected, prior(*read).mixture.weights)
    many = [each.expand(20_000, -1) for each in read]
    with torch.no_grad():
        sampled = prior.train()(*many).mixture.weights
    torch.testing.assert_close(sampled.mean(0, keepdim=True), expected, rtol=0.05, atol=0.002)


def test_single_gaussian_costs_nothing_but_its_kl() -> None:
    output = single()(*inputs(6))
    assert torch.equal(hierarchical_kl(output.sticks, output.concentration), torch.zeros(6))
    start = torch.full((6, 1, LATENT), PriorConfig().start_std)
    torch.testing.assert_close(output.mixture.stds, start, rtol=0.5, atol=0)


@pytest.mark.parametrize("make", [dirichlet, single])
@pytest.mark.parametrize("scale", [0.0, 1e4, 1e15])
def test_outputs_and_gradients_stay_finite_for_extreme_beliefs_and_weights(
    make: Callable[[], DirichletProcessPrior | SingleGaussianPrior], scale: float
) -> None:
    prior = make()
    with torch.no_grad():
        prior.head.weight.mul_(1e3)
    output = prior.train()(*inputs(16, scale=scale))
    loss = hierarchical_kl(output.sticks, output.concentration).sum()
    loss = loss - output.mixture.log_prob(torch.full((16, LATENT), 3.0)).sum()
    gradients = torch.autograd.grad(loss, list(prior.parameters()))
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)
    for log_parameter in (*output.sticks, *output.concentration):
        assert (log_parameter.abs() <= math.log(50) * (1 + 1e-6)).all()


@pytest.mark.parametrize("prior", [dirichlet(), single()])
def test_float64_stays_and_bfloat16_autocast_gives_float32(prior: nn.Module) -> None:
    read = inputs(3)
    plain = prior.eval()(*read)
    with torch.autocast("cpu", torch.bfloat16):
        lowered = prior(*read)
        standard = DiagonalGaussian(torch.zeros(3, LATENT), torch.ones(3, LATENT))
        kl = mixture_kl(standard, lowered.mixture, standard.mean)
        cost = stick_breaking_kl(lowered.sticks, lowered.concentration)
    assert {each.dtype for each in (*lowered.mixture, *lowered.sticks, kl, cost)} == {torch.float32}
    for single_precision, half in zip(plain.mixture, lowered.mixture, strict=True):
        torch.testing.assert_close(half, single_precision, rtol=0.05, atol=0.05)
    wide = prior.double()(*(each.double() for each in read))
    prior.float()
    assert {each.dtype for each in (*wide.mixture, *wide.sticks)} == {torch.float64}
    for single_precision, double in zip(plain.mixture, wide.mixture, strict=True):
        torch.testing.assert_close(single_precision, double.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"components": 0}, ["prior.components", "0", "1 or more"]),
        ({"hidden": -3}, ["prior.hidden", "-3"]),
        ({"residuals": -1}, ["prior.residuals", "-1"]),
    ],
)
def test_impossible_sizes_are_named(change: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(AimeError) as error:
        PriorConfig(**change)
    assert all(name in str(error.value) for name in names)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [DirichletProcessPrior, SingleGaussianPrior])
def test_hidden_features_are_dropped_in_training_alone(kind: type[DirichletProcessPrior | SingleGaussianPrior]) -> None:
    prior = kind(PriorConfig(hidden=4096), BELIEF, CONTEXT, LATENT)
    read = torch.randn(1, BELIEF), torch.randn(1, 2 * LATENT), torch.randn(1, CONTEXT)
    dropped, whole = prior.train().trunk(*read), prior.eval().trunk(*read)
    kept = dropped != 0
    assert float(kept.float().mean()) == pytest.approx(1 - PriorConfig.dropout, abs=0.03)
    torch.testing.assert_close(dropped[kept], whole[kept] / (1 - PriorConfig.dropout))


@pytest.mark.parametrize("prior", [dirichlet(), single()])
@pytest.mark.parametrize("rows", [3, 100])
def test_the_lazy_prior_gives_the_weights_and_the_picked_component(
    prior: DirichletProcessPrior | SingleGaussianPrior, rows: int
) -> None:
    prior = prior.double().eval()
    read = [each.double() for each in inputs(rows)]
    whole, lazy = prior(*read).mixture, prior.lazy()(*read)
    torch.testing.assert_close(lazy.log_weights, whole.log_weights, rtol=1e-10, atol=1e-10)
    component = torch.arange(rows) % whole.log_weights.shape[-1]
    for mine, theirs in zip(lazy.pick(component), whole.pick(component), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)
    prior.float()
