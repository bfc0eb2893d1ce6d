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
"""Rows of task gradients to one vector, such as a `torchjd.aggregation.Aggregator`."""


class TorchJD:
    """One of torchjd's aggregators on the Jacobian `[m,P]` of the tasks over the parameters that they share.

    What two or more tasks reach gets what the aggregator returns: some return a mean rather than a sum. All else gets
    the plain sum, as do the gradients of tasks whose vote is 0; other votes change nothing. Aggregators that remember
    former steps (GradVac, ExcessMTL, PCD) start again when a run is resumed.

    Args:
        named_parameters: those to train, all on one device; frozen ones are left out.
        aggregate: an aggregator.

    Reference: Quinton & Rey 2024, arXiv 2406.16232.
    """

    waits_for_nothing = False

    def __init__(self, named_parameters: NamedParameters, aggregate: Aggregate) -> None:
        self._layout, self._aggregate = Layout(named_parameters), aggregate
        self._held: TaskGradients | None = None
        self._heard: set[int] = set()

    def differentiate(self, losses: Mapping[str, Float[Tensor, ""]], votes: Votes | None = None) -> None:
        """Differentiate one batch's losses and hold their gradients."""
        self._heard = {row for row, task in enumerate(losses) if float((votes or {}).get(task, 1.0)) > 0}
        if self._held is None:
            self._held = TaskGradients(self._layout, tuple(losses))
        self._held.add(losses)

    @torch.no_grad()
    def resolve(self) -> None:
        """Aggregate the gradients held, add the result to `.grad`, and forget them."""
        assert self._held is not None, "resolve follows differentiate"
        held, self._held = self._held, None
        held.average_over_ranks()
        gradient = held.rows.sum(0)
        shared = [run for run in held.runs() if len(self._heard.intersection(run.tasks)) > 1]
        tasks = sorted({task for run in shared for task in self._heard.intersection(run.tasks)})
        unheard = [row for row in range(len(held.tasks)) if row not in self._heard]
        if shared:
            columns = [held.rows[:, run.start : run.stop] for run in shared]
            jacobian = torch.stack([torch.cat([each[task] for each in columns]) for task in tasks])
            pieces = self._aggregate(jacobian).split([run.stop - run.start for run in shared])
            for run, piece in zip(shared, pieces, strict=True):
                gradient[run.start : run.stop] = piece + held.rows[unheard, run.start : run.stop].sum(0)
        self._layout.add_to_grad(gradient, held.reached())

    def backward(self, losses: Mapping[str, Float[Tensor, ""]], votes: Votes | None = None) -> None:
        """`differentiate` one batch and `resolve`."""
        self.differentiate(losses, votes)
        self.resolve()

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take any state, since none is kept: a run may go on with another balancer."""


def torchjd_aggregator(name: str) -> nn.Module:
    """The aggregator of torchjd with this name and its default settings.

    Raises:
        AimeError: if torchjd is missing, or has no aggregator of this name that needs no settings.
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
