"""Which latent an imagined path takes from the prior of a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from aime.primitives.distributions import GaussianMixture, Pickable, mode_of, sample_of


class Choice(NamedTuple):
    """The latent that a path takes, and the component it came from."""

    latent: Float[Tensor, "N latent"]
    component: Int[Tensor, " N"]


Chooser = Callable[[GaussianMixture, int], Choice]
"""Takes the prior of a step and the step's number from 0, gives the latent to go on with."""
Picker = Callable[[Pickable, int], Choice]
"""A chooser that needs only the weights and one component."""


def likeliest(mixture: Pickable, number: int) -> Choice:
    """The heaviest component's mean: the mixture's own mean lies between its modes."""
    return Choice(*mode_of(mixture))


def sampled(mixture: Pickable, number: int) -> Choice:
    """A sample of the mixture, from torch's global generator."""
    return Choice(*sample_of(mixture))
