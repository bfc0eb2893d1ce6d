"""What the latent dynamics takes and gives: the state between two steps, clips followed, and paths imagined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils._pytree import tree_map

from aime.dynamics.prior import DirichletProcessMixture
from aime.dynamics.recurrences.interface import Memory


class Widths(NamedTuple):
    """Numbers in each of the vectors."""

    latent: int
    context: int
    """0 for a model without."""
    action: int
    belief: int


class Carry(NamedTuple):
    """All that is carried from step to step, N rows of vectors: a pytree of tensors whose first axis is the row."""

    belief: Float[Tensor, "N belief"]
    """h_{t-1}."""
    memory: Memory
    """The recurrence's state besides the belief, opaque to all else."""
    latent: Float[Tensor, "N latent"]
    """z_t."""
    step: Float[Tensor, "N latent"]
    """z_t - z_{t-1}, 0 at the first frame of a video."""
    context: Float[Tensor, "N context"]
    """c_t where the frame was seen, the implied context where it was imagined."""

    @property
    def read(self) -> tuple[Tensor, Tensor, Tensor]:
        """What heads, policies and critics read: belief, latent and its last step."""
        return self.belief, self.latent, self.step

    def map(self, function: Callable[[Tensor], Tensor]) -> Carry:
        """The carry with `function` applied to each tensor."""
        return tree_map(function, self)

    def pick(self, rows: Int[Tensor, " M"] | Bool[Tensor, " N"] | slice) -> Carry:
        """Some of the N rows."""
        return self.map(lambda each: each[rows])

    def repeated(self, count: int) -> Carry:
        """Each row `count` times, its copies one after the other: `[N·count,·]`."""
        return self.map(lambda each: repeat(each, "n ... -> (n s) ...", s=count))

    def replace(self, rows: Int[Tensor, " M"], others: Carry) -> Carry:
        """The carry with M others in place of some rows."""
        return tree_map(lambda old, new: old.index_copy(0, rows, new), self, others)

    def where(self, rows: Bool[Tensor, " N"], others: Carry) -> Carry:
        """Others where `rows` is True, these elsewhere."""
        return tree_map(lambda old, new: torch.where(rows.view(-1, *[1] * (old.ndim - 1)), new, old), self, others)

    @staticmethod
    def join(carries: Sequence[Carry]) -> Carry:
        """All rows of several carries."""
        return tree_map(lambda *each: torch.cat(each), *carries)


class Track(NamedTuple):
    """Beliefs and priors along latents, contexts and actions."""

    latents: Float[Tensor, "B T latent"]
    """z_t: a sample of the posterior in training mode, its mean in eval mode."""
    steps: Float[Tensor, "B T latent"]
    """z_t - z_{t-1}, 0 at the first frame of a video."""
    prior: DirichletProcessMixture
    """p(z_t | h_{t-1}, z_{t-1}, z_{t-2}, expected context)."""
    beliefs: Float[Tensor, "B T belief"]
    """h_{t-1}, the belief that enters step t."""
    expected_contexts: Float[Tensor, "B T context"]
    """The context that h_{t-1} expects."""
    implied_contexts: Float[Tensor, "B T context"]
    """The context that (h_{t-1}, z_t) implies; it stands for c_t in imagination."""
    belief_contexts: Float[Tensor, "B T context"]
    """What the belief read: c_t, or the implied context on the spans that training drops."""
    actions: Float[Tensor, "B T A"]
    """The actions as the belief read them: missing ones are the learned null action."""
    memory: Memory
    """The recurrence's memory that enters the first step."""

    @property
    def read(self) -> tuple[Tensor, Tensor, Tensor]:
        """What heads read, as in `Carry`, `[B,T,·]`."""
        return self.beliefs, self.latents, self.steps


class Dream(NamedTuple):
    """F imagined steps of N futures."""

    latents: Float[Tensor, "N F latent"]
    steps: Float[Tensor, "N F latent"]
    """How far each latent is from the one before."""
    beliefs: Float[Tensor, "N F belief"]
    log_weights: Float[Tensor, "N F K"]
    components: Int[Tensor, "N F"]
    """The mixture component that each latent came from."""
    actions: Float[Tensor, "N F A"]
    """What was done before each arrival."""

    @property
    def read(self) -> tuple[Tensor, Tensor, Tensor]:
        """What heads read, as in `Carry`, `[N,F,·]`."""
        return self.beliefs, self.latents, self.steps
