"""How well the state of the robot or simulator is predicted, compared with two baselines."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from aime.primitives.standardise import Standardise


class StateErrors(NamedTuple):
    """Squared errors in B clips, in units of each number's variance over the training data, averaged over the numbers.

    NaN where nothing is known.
    """

    predicted: Float[Tensor, "B F"]
    persistence: Float[Tensor, "B F"]
    """Of the last state in the context, repeated."""
    mean: Float[Tensor, "B F"]
    """Of the training data's mean."""


def state_errors(
    scale: Standardise, predicted: Float[Tensor, "B S F W"], states: Float[Tensor, "B T W"], context: int
) -> StateErrors:
    """The errors of the mean of S sampled futures, after `context` states were seen.

    Args:
        scale: of the training data.
        predicted: in the states' own units.
        states: the true ones, NaN where not known.
        context: 1..T-1.
    """
    truth = scale(states)
    seen, come = truth[:, :context], truth[:, context:]
    expected = scale(predicted).mean(dim=1), last_known(seen)[:, None], torch.zeros_like(come)
    return StateErrors(*((each - come).square().nanmean(dim=-1) for each in expected))


def last_known(seen: Float[Tensor, "B C W"]) -> Float[Tensor, "B W"]:
    """The last of C values that is known, of each number; NaN where none is."""
    times = torch.arange(seen.shape[1], device=seen.device)[:, None]
    last = torch.where(seen.isfinite(), times, 0).amax(dim=1, keepdim=True)
    return seen.gather(1, last)[:, 0]
