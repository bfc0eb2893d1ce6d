"""Balancers of the torchjd package, for comparison."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aime.errors import AimeError
from aime.optimization.balancers import NamedParameters, Votes
from aime.optimization.gradients import Layout, TaskGradients

Aggregate = Callable[[Float[Tensor, "m P"]], Float[Tensor, "P"]]
"""Maps rows of task gradients to one vector, as a `torchjd.aggregation.Aggregator` does."""


class TorchJD:
    """Applies a torchjd aggregator to the Jacobian `[m,P]` of the tasks over their shared parameters.

    Parameters that two or more tasks reach get the aggregator's result, which for some aggregators is a mean instead of
    a sum. Other parameters, and tasks with vote 0, contribute their plain sum; other votes have no effect. Aggregators
    with a state (GradVac, ExcessMTL, PCD) lose it when a run is resumed.

    Args:
        named_parameters: all on one device; frozen ones are ignored.
        aggregate: an aggregator.

    Reference: Quinton & Rey 2024, arXiv 2406.16232.
    """

    no_host_sync = False

    def __init__(self, named_parameters: NamedParameters, aggregate: Aggregate) -> None:
        self._layout, self._aggregate = Layout(named_parameters), aggregate
        self._gradients: TaskGradients | None = None
        self._voting: set[int] = set()

    def differentiate(self, losses: Mapping[str, Float[Tensor, ""]], votes: Votes | None = None) -> None:
        """Differentiate one batch's losses and keep the gradients until `resolve`."""
        self._voting = {row for row, task in enumerate(losses) if float((votes or {}).get(task, 1.0)) > 0}
        if self._gradients is None:
            self._gradients = TaskGradients(self._layout, tuple(losses))
        self._gradients.add(losses)

    @torch.no_grad()
    def resolve(self) -> None:
        """Aggregate the kept gradients, add the result to `.grad`, and drop them."""
        assert self._gradients is not None, "resolve follows differentiate"
        gradients, self._gradients = self._gradients, None
        gradients.average_over_ranks()
        gradient = gradients.rows.sum(0)
        shared = [part for part in gradients.column_ranges() if len(self._voting.intersection(part.tasks)) > 1]
        tasks = sorted({task for part in shared for task in self._voting.intersection(part.tasks)})
        without_vote = [row for row in range(len(gradients.tasks)) if row not in self._voting]
        if shared:
            columns = [gradients.rows[:, part.start : part.stop] for part in shared]
            jacobian = torch.stack([torch.cat([each[task] for each in columns]) for task in tasks])
            pieces = self._aggregate(jacobian).split([part.stop - part.start for part in shared])
            for part, piece in zip(shared, pieces, strict=True):
                gradient[part.start : part.stop] = piece + gradients.rows[without_vote, part.start : part.stop].sum(0)
        self._layout.add_to_grad(gradient, gradients.reached())

    def backward(self, losses: Mapping[str, Float[Tensor, ""]], votes: Votes | None = None) -> None:
        """`differentiate` one batch and `resolve`."""
        self.differentiate(losses, votes)
        self.resolve()

    def state_dict(self) -> dict[str, Tensor]:
        """Empty."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Ignore the state: a run may be resumed with another balancer."""


def torchjd_aggregator(name: str) -> nn.Module:
    """The torchjd aggregator of this name, with default settings.

    Raises:
        AimeError: if torchjd is not installed, or has no such aggregator without required settings.
    """
    try:
        from torchjd import aggregation
    except ImportError as error:
        raise AimeError(
            f"balancer is torchjd:{name}, but torchjd is not installed: pip install 'aime[balancers]'"
        ) from error
    known: dict[str, Any] = {
        each: found
        for each, found in vars(aggregation).items()
        if inspect.isclass(found) and issubclass(found, aggregation.Aggregator) and _needs_no_settings(found)
    }
    if name not in known:
        raise AimeError(
            f"balancer is torchjd:{name}; expected one of {', '.join(sorted(known))}, which the torchjd of "
            "pip install 'aime[balancers]' has"
        )
    try:
        return known[name]()
    except ImportError as error:
        raise AimeError(
            f"balancer is torchjd:{name}, but a package that it needs is not installed: pip install 'aime[balancers]'"
        ) from error


def _needs_no_settings(kind: type) -> bool:
    if inspect.isabstract(kind):
        return False
    parameters = list(inspect.signature(kind).parameters.values())
    return all(each.default is not each.empty for each in parameters)
