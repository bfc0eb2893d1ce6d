"""The loss ledger: terms keep their names until one weighted sum, and none can be forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class TaskLoss(NamedTuple):
    """One task's loss: its unweighted terms by name, and their weighted sum."""

    task: str
    terms: NamedTuple
    """Scalars, in nats per frame; None where a term is switched off."""
    total: Float[Tensor, ""]

    @property
    def off(self) -> bool:
        """Whether every term is switched off, so that there is nothing to learn or to log."""
        return all(value is None for value in self.terms)

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """The scalars as ("task/term", value), for the log."""
        for name, value in self.terms._asdict().items():
            if value is not None:
                yield f"{self.task}/{name}", value.detach()


def unless_off(weight: float, term: Callable[[], Float[Tensor, ""]]) -> Float[Tensor, ""] | None:
    """A term, or None where its weight is 0: what is switched off costs nothing and is not logged."""
    return term() if weight else None


def weigh(task: str, terms: NamedTuple, weights: Any) -> TaskLoss:
    """Sum the terms by the weights of the same names.

    Args:
        task: the task's name.
        terms: a NamedTuple of scalar tensors; None is left out of the sum, which is 0 where nothing is left.
        weights: a dataclass with one float field for each term.

    Raises:
        AssertionError: if a term has no weight or a weight no term.
    """
    named = {field.name: getattr(weights, field.name) for field in fields(weights)}
    values = terms._asdict()
    assert set(named) == set(values), f"{task}: terms {sorted(values)} but weights {sorted(named)}"
    weighed = [named[name] * value for name, value in values.items() if value is not None]
    return TaskLoss(task, terms, torch.stack(weighed).sum() if weighed else torch.zeros(()))


def mean_losses(batches: Sequence[tuple[TaskLoss, ...]]) -> tuple[TaskLoss, ...]:
    """The mean of each task's terms and total over batches whose gradients are accumulated, without gradient."""
    return tuple(_mean_of(each) for each in zip(*batches, strict=True))


def _mean_of(losses: Sequence[TaskLoss]) -> TaskLoss:
    def mean(values: Sequence[Tensor | None]) -> Tensor | None:
        known = [value.detach() for value in values if value is not None]
        return torch.stack(known).mean() if known else None

    first = losses[0]
    columns = zip(first.terms._fields, *(loss.terms for loss in losses), strict=True)
    terms = first.terms._replace(**{name: mean(values) for name, *values in columns})
    return TaskLoss(first.task, terms, torch.stack([loss.total.detach() for loss in losses]).mean())


def gaussian_nats(
    squared_error: Float[Tensor, "..."],
    variance: Float[Tensor, ""],
    values: int,
    log_precision: Float[Tensor, "..."] | float = 0.0,
) -> Float[Tensor, "..."]:
    """-log N(x; x̂, variance/w) of frames with `values` numbers each, in nats per frame.

    Args:
        squared_error: mean over a frame of w times the squared error.
        variance: σ², above 0.
        values: numbers in a frame.
        log_precision: mean over a frame of log w; 0 where every w is 1.
    """
    return 0.5 * values * (torch.log(2 * torch.pi * variance) + squared_error / variance - log_precision)
