"""The interface of balancers, which combine several losses into one gradient, and the plain sum."""

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
"""Weights of tasks in [0, 1]; a weight that changes between steps is a tensor on the device."""


class Balance(NamedTuple):
    """Statistics of the task gradients in one step: detached tensors on the device."""

    tasks: tuple[str, ...]
    """Task names, in the order of the other fields."""
    norms: Float[Tensor, "tasks"]
    """‖g_i‖ over all parameters that the task reaches; not finite if the task's gradient is not."""
    angles: Float[Tensor, "tasks"]
    """Rotation in radians, in [0, π/2)."""
    cosines: Float[Tensor, "tasks tasks"]
    """Cosines between task gradients over their shared parameters, in [-1, 1]; 0 if either task is inactive."""
    active: Bool[Tensor, "tasks"]
    """True for balanced tasks; the gradients of the others are added unchanged."""

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """The scalars as ("balance/figure_task", value), for the log."""
        for row, task in enumerate(self.tasks):
            yield f"balance/norm_{task}", self.norms[row]
            yield f"balance/angle_{task}", self.angles[row]
        for (i, first), (j, second) in itertools.combinations(enumerate(self.tasks), 2):
            yield f"balance/cosine_{first}_{second}", self.cosines[i, j]


class Balancer(Protocol):
    """Combines the losses of several tasks into one gradient, added to `.grad` of every parameter that they reach.

    A step consists of one `differentiate` per accumulated batch, then one `resolve` on the sum of each task's
    gradients. `backward` does both for one batch. Under `torch.distributed`, task gradients are averaged over the ranks
    first; each task must reach the same parameters on every rank.
    """

    no_host_sync: bool
    """Whether a step never reads from the device and updates state in place, as a CUDA graph requires."""

    def differentiate(self, losses: Mapping[str, Float[Tensor, ""]], votes: Votes | None = None) -> None:
        """Differentiate one batch's losses and free their graphs.

        Args:
            losses: a scalar per task; the same tasks at every call of a step.
            votes: weights of the tasks in [0, 1], default 1; the gradient of a task with vote 0 is added unchanged.
        """

    def resolve(self) -> Balance | None:
        """Add the combined gradient to `.grad`; returns its statistics, if the balancer has any."""

    def backward(self, losses: Mapping[str, Float[Tensor, ""]], votes: Votes | None = None) -> Balance | None:
        """`differentiate` one batch and `resolve`."""

    def state_dict(self) -> dict[str, Tensor]:
        """The state by name."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state from a `state_dict`.

        Raises:
            AimeError: if a tensor is missing or has the wrong shape.
        """


class Sum:
    """The plain sum of the losses, differentiated once."""

    no_host_sync = True

    def __init__(self, named_parameters: NamedParameters) -> None:
        self.parameters = [parameter for _, parameter in named_parameters if parameter.requires_grad]

    def differentiate(self, losses: Mapping[str, Float[Tensor, ""]], votes: Votes | None = None) -> None:
        """Add the gradient of the sum to `.grad`; votes have no effect."""
        torch.stack(list(losses.values())).sum().backward(inputs=self.parameters)

    def resolve(self) -> None:
        """Average `.grad` over the ranks."""
        average_over_ranks([each.grad for each in self.parameters if each.grad is not None])

    def backward(self, losses: Mapping[str, Float[Tensor, ""]], votes: Votes | None = None) -> None:
        """`differentiate` one batch and `resolve`."""
        self.differentiate(losses, votes)
        self.resolve()

    def state_dict(self) -> dict[str, Tensor]:
        """Empty."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Ignore the state: a run may be resumed with another balancer."""
