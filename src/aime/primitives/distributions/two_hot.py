"""Two-hot categorical distribution over real numbers, for regression by classification."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from aime.primitives.distributions.precision import accurate

LARGEST = 20.0
"""symlog of the outermost bins: e²⁰ - 1, about 5·10⁸."""


def symlog(value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """sign(x) log(1 + |x|)."""
    return value.sign() * value.abs().log1p()


def symexp(value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """sign(x) (e^|x| - 1), the inverse of `symlog`."""
    return value.sign() * torch.expm1(value.abs())


def bins(count: int, device: torch.device | None = None) -> Float[Tensor, " N"]:
    """`count` numbers that are evenly spaced in symlog from -20 to 20, exactly symmetric about 0."""
    return symexp(even_bins(count, LARGEST, device))


def even_bins(
    count: int, largest: float | Float[Tensor, ""], device: torch.device | None = None
) -> Float[Tensor, " N"]:
    """`count` numbers evenly spaced from -largest to largest, float64, exactly symmetric about 0."""
    steps = torch.arange(count, dtype=torch.float64, device=device) - (count - 1) / 2
    exact = largest.double() if isinstance(largest, Tensor) else largest
    return steps * (2 * exact / (count - 1))


class TwoHot(NamedTuple):
    """A distribution of a number over N bins; the size of its loss does not depend on the number's scale.

    A target is distributed over the two bins around it such that their mean is the target.
    Reference: Hafner et al. 2023, DreamerV3, arXiv 2301.04104, equations 8 to 10.

    Example:
        >>> TwoHot(torch.zeros(255)).mean
        tensor(0.)
    """

    logits: Float[Tensor, "... N"]
    numbers: Float[Tensor, " N"] | None = None
    """The bins, ascending, in float64; None: `bins(N)`."""

    @property
    def edges(self) -> Float[Tensor, " N"]:
        """The bins, in float64."""
        return bins(self.logits.shape[-1], self.logits.device) if self.numbers is None else self.numbers

    @property
    def mean(self) -> Float[Tensor, "..."]:
        """Σ_n p_n bin_n, in the number's units."""
        # sum pairs of opposite bins first, so that equal tails cancel exactly
        probabilities = torch.softmax(self.logits.double(), dim=-1)
        weighed = probabilities * self.edges
        half = weighed.shape[-1] // 2
        negative, middle, positive = weighed.split([half, weighed.shape[-1] - 2 * half, half], dim=-1)
        return ((negative.flip(-1) + positive).sum(-1) + middle.sum(-1)).to(accurate(self.logits).dtype)

    def log_prob(self, value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Minus the cross entropy of the value's two bins, in nats; at most 0."""
        edges = self.edges
        exact = value.double().clamp(edges[0], edges[-1])
        upper = torch.searchsorted(edges, exact.contiguous()).clamp(1, len(edges) - 1)
        low, high = edges[upper - 1], edges[upper]
        share = ((exact - low) / (high - low)).to(accurate(self.logits).dtype)
        log_probabilities = torch.log_softmax(accurate(self.logits), dim=-1)
        below = log_probabilities.gather(-1, upper[..., None] - 1).squeeze(-1)
        above = log_probabilities.gather(-1, upper[..., None]).squeeze(-1)
        return (1 - share) * below + share * above
