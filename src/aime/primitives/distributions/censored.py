"""Censored Gaussians on [-1, 1], and mixtures of them, for actions."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from aime.primitives.distributions.gaussian import LOG_2PI
from aime.primitives.distributions.mixture import GaussianMixture, from_uniforms
from aime.primitives.distributions.precision import accurate

EDGE = 1e-6
"""A value this close to -1 or 1 counts as the bound, since float32 storage rounds."""


class CensoredGaussian(NamedTuple):
    """clip(x, -1, 1) of x ~ N(mean, diag(std²)) over the last axis. Nats throughout.

    It has a density on (-1, 1) and a point mass at each bound. Actuators are often at their limits, where a squashed
    Gaussian would need an infinite mean. Densities are with respect to length plus the two point masses.

    Reference: Tobin 1958, "Estimation of relationships for limited dependent variables".

    Example:
        >>> CensoredGaussian(torch.tensor([3.0]), torch.tensor([1.0])).mean
        tensor([0.9915])
    """

    location: Float[Tensor, "... A"]
    """Mean before clipping."""
    scale: Float[Tensor, "... A"]
    """Standard deviation before clipping, above 0."""

    def log_prob(self, value: Float[Tensor, "... A"]) -> Float[Tensor, "..."]:
        """Log density of `[...,A]` in [-1, 1], summed over A, in nats."""
        location, scale, value = accurate(self.location), accurate(self.scale), accurate(value)
        inside = -0.5 * ((value - location) / scale).square() - scale.log() - 0.5 * LOG_2PI
        below = torch.special.log_ndtr((-1 - location) / scale)
        above = torch.special.log_ndtr((location - 1) / scale)
        return torch.where(value <= EDGE - 1, below, torch.where(value >= 1 - EDGE, above, inside)).sum(-1)

    @property
    def mean(self) -> Float[Tensor, "... A"]:
        """E clip(x), in (-1, 1)."""
        low, high, location, scale = self._bounds()
        within = torch.special.ndtr(high) - torch.special.ndtr(low)
        at_bounds = torch.special.ndtr(-high) - torch.special.ndtr(low)
        return at_bounds + location * within + scale * (_density(low) - _density(high))

    @property
    def mode(self) -> Float[Tensor, "... A"]:
        """The location, clipped."""
        return self.location.clamp(-1, 1)

    def entropy(self) -> Float[Tensor, "..."]:
        """-E log p, summed over A, in nats, with respect to the same measure."""
        low, high, _, scale = self._bounds()
        within = torch.special.ndtr(high) - torch.special.ndtr(low)
        masses = sum(-tail.exp() * tail for tail in (torch.special.log_ndtr(low), torch.special.log_ndtr(-high)))
        squares = within - _moment(high) + _moment(low)
        return (masses + within * (scale.log() + 0.5 * LOG_2PI) + 0.5 * squares).sum(-1)

    def sample(self) -> Float[Tensor, "... A"]:
        """One value `[...,A]` in [-1, 1], from torch's global generator, without gradients."""
        with torch.no_grad():
            location = accurate(self.location)
            return torch.addcmul(location, accurate(self.scale), torch.randn_like(location)).clamp(-1, 1)

    @property
    def noise_width(self) -> int:
        """The number of uniform numbers per sample for `from_uniforms`."""
        return self.location.shape[-1]

    def from_uniforms(self, uniforms: Float[Tensor, "... A"]) -> Float[Tensor, "... A"]:
        """A sample `[...,A]` in [-1, 1] by the inverse CDF of uniform numbers in (0, 1), without gradients."""
        with torch.no_grad():
            location = accurate(self.location)
            normal = torch.special.ndtri(accurate(uniforms))
            return torch.addcmul(location, accurate(self.scale), normal).clamp(-1, 1)

    def _bounds(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        location, scale = accurate(self.location), accurate(self.scale)
        return (-1 - location) / scale, (1 - location) / scale, location, scale


class CensoredMixture(NamedTuple):
    """Σ_m w_m of censored Gaussians over the last axis; log w normalised over M. Nats throughout."""

    log_weights: Float[Tensor, "... M"]
    components: CensoredGaussian
    """`[...,M,A]`."""

    def log_prob(self, value: Float[Tensor, "... A"]) -> Float[Tensor, "..."]:
        """Log density of `[...,A]` in [-1, 1], in nats."""
        joint = accurate(self.log_weights) + self.components.log_prob(value[..., None, :])
        return torch.logsumexp(joint, dim=-1)

    @property
    def mean(self) -> Float[Tensor, "... A"]:
        """The mean, which may have low density under every component."""
        return (accurate(self.log_weights).exp()[..., None] * self.components.mean).sum(-2)

    @property
    def mode(self) -> Float[Tensor, "... A"]:
        """The mode of the component with the largest weight."""
        return self._pick(self.log_weights.argmax(-1)).mode

    def sample(self) -> Float[Tensor, "... A"]:
        """One value `[...,A]` in [-1, 1], from torch's global generator, without gradients."""
        with torch.no_grad():
            log_weights = accurate(self.log_weights)
            gumbel = -torch.empty_like(log_weights).exponential_().log()
            return self._pick((log_weights + gumbel).argmax(-1)).sample()

    @property
    def noise_width(self) -> int:
        """The number of uniform numbers per sample for `from_uniforms`."""
        return self.log_weights.shape[-1] + self.components.noise_width

    def from_uniforms(self, uniforms: Float[Tensor, "... noise"]) -> Float[Tensor, "... A"]:
        """A sample `[...,A]` in [-1, 1] as a function of M + A uniform numbers in (0, 1), without gradients."""
        unclipped = GaussianMixture(self.log_weights, self.components.location, self.components.scale)
        return from_uniforms(unclipped, uniforms).value.clamp(-1, 1)

    def _pick(self, component: Int[Tensor, "..."]) -> CensoredGaussian:
        index = component[..., None, None].expand(*component.shape, 1, self.components.location.shape[-1])
        return CensoredGaussian(*(field.gather(-2, index).squeeze(-2) for field in self.components))


def _density(standardised: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    return torch.exp(-0.5 * standardised.square()) / math.sqrt(2 * math.pi)


def _moment(standardised: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The product t φ(t)."""
    return standardised * _density(standardised)
