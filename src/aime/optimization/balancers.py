"""Several losses to one gradient: what every balancer offers, and the plain sum."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from aime.primitives.ranks import average_over_ranks

NamedParameters = Iterable[tuple[str, nn.Parameter]]

Votes = Mapping[str, float | Float[Tensor, ""]]
"""Weights of tasks in [0, 1]; one that changes from step to step as a tensor on the device."""


class Balance(NamedTuple):
    """How the tasks stood to each other in one step; detached tensors on the device, so that nothing waits for it."""

    tasks: tuple[str, ...]
    """The names that the other fields are ordered by."""
    norms: Float[Tensor, "tasks"]
    """‖g_i‖ over all parameters that the task reaches; not finite where the task's gradient is not."""
    angles: Float[Tensor, "tasks"]
    """Rotation in radians, in [0, π/2)."""
    cosines: Float[Tensor, "tasks tasks"]
    """Between task gradients over the parameters they share, in [-1, 1]; 0 where either is inactive."""
    active: Bool[Tensor, "tasks"]
    """Which tasks were balanced; the gradients of the others were added as they were."""

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """The scalars as ("balance/figure_task", value), for the log."""
        for row, task in enumerate(self.tasks):
            yield f"balance/norm_{task}", self.norms[row]
            yield f"balance/angle_{task}", self.angles[row]
        for (i, first), (j, second) in itertools.combinations(enumerate(self.tasks), 2):
            yield f"balance/cosine_{first}_{second}", self.cosines[i, j]


class Balancer(Protocol):
    """Turns the losses of several tasks into one gradient, added to `.grad` of every parameter that they reach.

    One step is one or more calls of `differentiate`, one for each batch whose gradients are accumulated, and then one
    `resolve`, which sees the sum of each task's gradients over these calls: accumulating two half batches is the same
    as one whole batch. `backward` does both for one batch. Under `torch.distributed` task gradients are averaged over
    the ranks before anything else is done with them; on every rank each task must reach the same parameters.
    """

    waits_for_nothing: bool
    """Whether a step reads nothing back from the device and keeps its state in place, so that it can be recorded."""

    def differentiate(self, losses: Mapping[str, Float[Tensor, ""]], votes: Votes | None = None) -> None:
        """Differentiate one batch's losses and free their graphs.

        Args:
            losses: a scalar for every task, the same tasks at every call of a step.
            votes: weights in [0, 1] of the tasks where they agree on a direction; 1 if absent. At 0 a task has no say
                there, and its gradient is added as it is.
        """

    def resolve(self) -> Balance | None:
        """Add the one gradient to `.grad`; what there is to tell about it, if anything."""

    def backward(self, losses: Mapping[str, Float[Tensor, ""]], votes: Votes | None = None) -> Balance | None:
        """`differentiate` one batch and `resolve`."""

    def state_dict(self) -> dict[str, Tensor]:
        """What the next step depends on, by name."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state_dict`.

        Raises:
            AimeError: if a tensor is missing or of another shape.
        """


class Sum:
    """The plain sum of the losses, differentiated once."""

    waits_for_nothing = True

    def __init__(self, named_parameters: NamedParameters) -> None:
        self.parameters = [parameter for _, parameter in named_parameters if parameter.requires_grad]

    def differentiate(self, losses: Mapping[str, Float[Tensor, ""]], votes: Votes | None = None) -> None:
        """Add the gradient of the sum to `.grad`; votes change nothing."""
        torch.stack(list(losses.values())).sum().backward(inputs=self.parameters)

    def resolve(self) -> None:
        """Average `.grad` over the ranks."""
        average_over_ranks([each.grad for each in self.parameters if each.grad is not None])

    def backward(self, losses: Mapping[str, Float[Tensor, ""]], votes: Votes | None = None) -> None:
        """`differentiate` one batch and `resolve`."""
        self.differentiate(losses, votes)
        self.resolve()

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing: a sum remembers nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take any state, since none is needed: a run may go on with another balancer."""
