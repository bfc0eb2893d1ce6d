"""The state of a robot or simulator as an observation: it is added to the context of its frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aime.errors import AimeError, expect_shares
from aime.primitives.boundary_layers import BoundaryLinear
from aime.primitives.distributions.two_hot import symlog


@dataclass(frozen=True)
class StateConfig:
    """The observed state.

    Raises:
        AimeError: if a number is out of its range.
    """

    width: int = 0
    """Numbers in the state that is read and predicted; 0 for frames alone. `--observe-state` takes that of the data."""
    hidden: ClassVar[int] = 128
    """Hidden width of the networks that read and predict it."""
    withheld: float = 0.25
    """Share of the training clips in which the state is hidden, throughout or on a random span, so that a model does
    without it."""
    min_std: ClassVar[float] = 0.02
    """Smallest standard deviation of a predicted number, in units of its own over the training data."""
    max_std: ClassVar[float] = 5.0

    def __post_init__(self) -> None:
        if self.width < 0:
            raise AimeError(f"state.width is {self.width}; expected 0 or more: 0 is a model that observes no state")
        expect_shares(self, "withheld", of="state")


class StateReader(nn.Module):
    """An addition to the context of a frame from its state; a learned vector where no number of it is known.

    It reads the state of that frame alone; the belief holds earlier ones.
    """

    def __init__(self, config: StateConfig, context: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(2 * config.width, config.hidden), nn.LayerNorm(config.hidden), nn.SiLU())
        self.project = BoundaryLinear(config.hidden, context)
        self.unknown = nn.Parameter(torch.zeros(context))
        # fine-tuning a model of frames with states starts from its own contexts
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, standardised: Float[Tensor, "... S"]) -> Float[Tensor, "... context"]:
        """The addition `[...,context]`; NaN is a number that is not known."""
        known = standardised.isfinite()
        # symlog: a sensor's outlier is large, and no more
        values = symlog(torch.where(known, standardised, 0.0))
        added = self.project(self.hidden(torch.cat([values, known.to(values.dtype)], dim=-1)))
        return torch.where(known.any(-1, keepdim=True), added, self.unknown.to(added.dtype))
