"""Mixture of diagonal Gaussians."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from aime.primitives.distributions.gaussian import DiagonalGaussian
from aime.primitives.distributions.precision import accurate


class MixtureSample(NamedTuple):
    """A sample of a mixture and its component."""

    value: Float[Tensor, "... D"]
    component: Int[Tensor, "..."]
    """In 0..K-1."""


class Pickable(Protocol):
    """A mixture that can compute a single component per row, as sampling requires."""

    @property
    def log_weights(self) -> Float[Tensor, "... K"]:
        """Normalised over K."""

    def pick(self, component: Int[Tensor, "..."]) -> DiagonalGaussian:
        """The component of each row, `component` `[...]` in 0..K-1."""


def sample_of(mixture: Pickable) -> MixtureSample:
    """One value `[...,D]` and its component `[...]`, from torch's global generator, without gradients."""
    with torch.no_grad():
        # Gumbel-max trick: the argmax of log π_k plus Gumbel noise is k with probability π_k
        log_weights = accurate(mixture.log_weights)
        gumbel = -torch.empty_like(log_weights).exponential_().log()
        component = (log_weights + gumbel).argmax(-1)
        return MixtureSample(mixture.pick(component).rsample(), component)


def from_uniforms(mixture: Pickable, uniforms: Float[Tensor, "... noise"]) -> MixtureSample:
    """A value `[...,D]` and its component `[...]` as functions of K + D uniform numbers in (0, 1); no gradients.

    The first K numbers choose the component, the others are quantiles of the value. A row of the result depends on its
    own row of noise only.
    """
    with torch.no_grad():
        log_weights = accurate(mixture.log_weights)
        uniforms = accurate(uniforms)
        component = (log_weights + _gumbel(uniforms[..., : log_weights.shape[-1]])).argmax(-1)
        chosen = mixture.pick(component)
        normal = torch.special.ndtri(uniforms[..., log_weights.shape[-1] :])
        return MixtureSample(torch.addcmul(accurate(chosen.mean), accurate(chosen.std), normal), component)


def _gumbel(uniforms: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    return -(-uniforms.log()).log()


def mode_of(mixture: Pickable) -> MixtureSample:
    """The mean `[...,D]` of the component with the largest weight, and that component `[...]`."""
    component = mixture.log_weights.argmax(-1)
    return MixtureSample(mixture.pick(component).mean, component)


class GaussianMixture(NamedTuple):
    """Σ_k π_k N(μ_k, diag(σ_k²)) over the last axis; log π normalised over K, σ > 0. Nats throughout.

    Example:
        >>> mixture = GaussianMixture(torch.tensor([0.25, 0.75]).log(), torch.tensor([[-1.0], [2.0]]), torch.ones(2, 1))
        >>> mixture.mean
        tensor([1.2500])
        >>> mixture.mode().value
        tensor([2.])
    """

    log_weights: Float[Tensor, "... K"]
    means: Float[Tensor, "... K D"]
    stds: Float[Tensor, "... K D"]

    @property
    def weights(self) -> Float[Tensor, "... K"]:
        """Mixture weights π, which sum to 1."""
        return accurate(self.log_weights).exp()

    @property
    def mean(self) -> Float[Tensor, "... D"]:
        """Σ_k π_k μ_k, which may have low density under every component."""
        return (self.weights[..., None] * accurate(self.means)).sum(-2)

    def log_prob(self, value: Float[Tensor, "... D"]) -> Float[Tensor, "..."]:
        """Log density of `[...,D]`, by log-sum-exp over the components, in nats."""
        return torch.logsumexp(self._joint(value), dim=-1)

    def responsibilities(self, value: Float[Tensor, "... D"]) -> Float[Tensor, "... K"]:
        """p(k | value), which sum to 1."""
        return torch.softmax(self._joint(value), dim=-1)

    def sample(self) -> MixtureSample:
        """One value `[...,D]` and its component `[...]`, from torch's global generator, without gradients."""
        return sample_of(self)

    def mode(self) -> MixtureSample:
        """The mean `[...,D]` of the component with the largest weight, and that component `[...]`."""
        return mode_of(self)

    def pick(self, component: Int[Tensor, "..."]) -> DiagonalGaussian:
        """The component of each row, `component` `[...]` in 0..K-1."""
        index = component[..., None, None].expand(*component.shape, 1, self.means.shape[-1])
        return DiagonalGaussian(self.means.gather(-2, index).squeeze(-2), self.stds.gather(-2, index).squeeze(-2))

    def detach(self) -> GaussianMixture:
        """The same distribution without gradients."""
        return GaussianMixture(self.log_weights.detach(), self.means.detach(), self.stds.detach())

    def _joint(self, value: Float[Tensor, "... D"]) -> Float[Tensor, "... K"]:
        components = DiagonalGaussian(self.means, self.stds)
        return accurate(self.log_weights) + components.log_prob(value[..., None, :])
