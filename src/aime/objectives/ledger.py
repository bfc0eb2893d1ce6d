"""The loss ledger: a task is a table of terms, which keep their names until one weighted sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aime.primitives.masked_mean import masked_mean

S = TypeVar("S")
Scalar = Float[Tensor, ""]


class TaskLoss(NamedTuple):
    """One task's loss: its unweighted terms by name, and their weighted sum."""

    task: str
    terms: Mapping[str, Scalar]
    """In nats per frame, without those that are switched off."""
    total: Scalar

    @property
    def off(self) -> bool:
        """Whether every term is switched off, so that there is nothing to learn or to log."""
        return not self.terms

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """The scalars as ("task/term", value), for the log."""
        for name, value in self.terms.items():
            yield f"{self.task}/{name}", value.detach()


def weigh(task: str, terms: Mapping[str, Callable[[S], Scalar | None]], given: S, weights: Any) -> TaskLoss:
    """Compute the terms whose weight is not 0, and sum them by the weights of the same names.

    Args:
        task: the task's name.
        terms: functions of `given`; None where the model lacks the part that a term is about.
        given: what the terms read.
        weights: a dataclass with one float field for each term.

    Raises:
        AssertionError: if a term has no weight or a weight no term.
    """
    named = {field.name: getattr(weights, field.name) for field in fields(weights)}
    assert set(named) == set(terms), f"{task}: terms {sorted(terms)} but weights {sorted(named)}"
    computed = {name: term(given) for name, term in terms.items() if named[name]}
    found = {name: value for name in named if (value := computed.get(name)) is not None}
    weighed = [named[name] * value for name, value in found.items()]
    return TaskLoss(task, found, torch.stack(weighed).sum() if weighed else torch.zeros(()))


def mean_losses(batches: Sequence[tuple[TaskLoss, ...]]) -> tuple[TaskLoss, ...]:
    """The mean of each task's terms and total over batches whose gradients are accumulated, without gradient."""
    return tuple(_mean_of(each) for each in zip(*batches, strict=True))


def _mean_of(losses: Sequence[TaskLoss]) -> TaskLoss:
    def mean(values: Sequence[Tensor]) -> Tensor:
        return torch.stack([value.detach() for value in values]).mean()

    terms = {name: mean([loss.terms[name] for loss in losses]) for name in losses[0].terms}
    return TaskLoss(losses[0].task, terms, mean([loss.total for loss in losses]))


def frame_nats(
    squared_error: Float[Tensor, "*N"],
    valid: Bool[Tensor, "*N"],
    values: int,
    log_precision: Float[Tensor, "*N"] | float = 0.0,
) -> Scalar:
    """-log N(x; x̂, σ²/w) in nats per frame, a mean over valid frames, where σ² is their mean error.

    Reference: Rybkin et al. 2021 (optimal σ-VAE), arXiv 2006.13202, equation 5.

    Args:
        squared_error: mean over a frame of w times the squared error.
        valid: False on padding.
        values: numbers in a frame.
        log_precision: mean over a frame of log w; 0 where every w is 1.
    """
    variance = masked_mean(squared_error, valid).detach().clamp_min(1e-6)
    nats = 0.5 * values * (torch.log(2 * torch.pi * variance) + squared_error / variance - log_precision)
    return masked_mean(nats, valid)
