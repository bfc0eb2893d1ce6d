"""Steps whose loss or gradient is not finite: not taken, counted, and traced to the term that caused them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer

from aime.errors import AimeError
from aime.objectives.ledger import TaskLoss
from aime.optimization import Balance
from aime.primitives.ranks import average_over_ranks

MOST_IN_A_ROW = 20
"""Skipped steps in a row after which training stops: nothing that is drawn again at each step explains so many."""

GRADIENT = "gradient"
"""The cause where every term is finite and no task's gradient is known by itself."""

_NAMES_BYTES = 4096


class NonfiniteSteps(nn.Module):
    """Decides on the device whether a step is taken, and counts there; the host reads when it likes.

    Optimizers are told by `found_inf`, as by torch's gradient scaler: they then leave weights, moments and their count
    of steps as they are. What else a step updates looks after itself: quantizer, replay, variance and balancer
    leave out what is not finite.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("in_a_row", torch.zeros((), dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(64, dtype=torch.int64))
        self.causes: list[str] = []
        """The names that `counts` are ordered by, in the order in which they were first seen."""
        self._known: dict[tuple[str, ...], Tensor] = {}

    in_a_row: Tensor
    counts: Tensor

    @torch.no_grad()
    def judge(
        self,
        optimizers: Iterable[Optimizer],
        losses: Iterable[TaskLoss],
        norm: Float[Tensor, ""],
        balance: Balance | None = None,
    ) -> None:
        """Make the optimizers' next step one that changes nothing, if a loss or the gradient is not finite.

        Args:
            optimizers: of all weights that the losses teach; each heeds `found_inf`, as torch's fused ones and Muon.
            losses: of this rank; the step is skipped on all ranks if it is on one.
            norm: of the gradient over all parameters and ranks.
            balance: whose norms tell the task, where the losses are finite and a gradient is not.
        """
        names, values = zip(*self._suspects(losses, balance, norm), strict=True)
        bad = ~torch.stack([value.detach().float().isfinite() for value in values])
        found = bad.any().float()[None]
        average_over_ranks([found])
        for optimizer in optimizers:
            if getattr(optimizer, "found_inf", None) is None:
                optimizer.found_inf = torch.zeros_like(found[0])  # type: ignore[attr-defined]
            # in the same memory at every step, where a recorded step writes it
            optimizer.found_inf.copy_(found[0] > 0)  # type: ignore[attr-defined]
        self._count(found[0] > 0, bad, names)

    def _suspects(
        self, losses: Iterable[TaskLoss], balance: Balance | None, norm: Float[Tensor, ""]
    ) -> Iterator[tuple[str, Tensor]]:
        """The first that is not finite is the cause."""
        totals = []
        for task in losses:
            yield from task.named()
            totals.append((f"{task.task}/total", task.total))
        yield from totals
        if balance is not None:
            yield from zip([f"{GRADIENT} of {task}" for task in balance.tasks], balance.norms, strict=True)
        yield GRADIENT, norm

    def _count(self, skipped: Bool[Tensor, ""], bad: Bool[Tensor, " N"], names: tuple[str, ...]) -> None:
        self.in_a_row.copy_(torch.where(skipped, self.in_a_row + 1, 0))
        # a rank whose own losses and gradients are sound skips with the others, and calls it by the last name
        first = torch.where(bad.any(), bad.float().argmax(), len(bad) - 1)
        # a scalar as an index would be read back
        place = self._counters(names).index_select(0, first[None])
        self.counts.index_add_(0, place, skipped.long()[None])

    def _counters(self, names: tuple[str, ...]) -> Int[Tensor, " N"]:
        """The places in `counts` of names, new ones at the end."""
        if names not in self._known:
            self.causes += [name for name in names if name not in self.causes]
            assert len(self.causes) <= len(self.counts), "more names than counters"
            places = [self.causes.index(name) for name in names]
            self._known[names] = torch.tensor(places, device=self.counts.device)
        return self._known[names]

    def require_progress(self, rate_flag: str, last_good: Callable[[], str]) -> None:
        """Stop a training whose steps are all skipped; waits for the device.

        Args:
            rate_flag: the setting of the learning rate, for the message.
            last_good: tells where the weights from before can be had, for the message.

        Raises:
            AimeError: if 20 steps or more in a row were skipped.
        """
        if (in_a_row := int(self.in_a_row)) >= MOST_IN_A_ROW:
            causes = ", ".join(f"{name} ({count})" for name, count in self.by_cause.items())
            raise AimeError(
                f"{in_a_row} steps in a row were skipped, as these were not finite: {causes}; expected finite losses "
                f"and gradients: lower {rate_flag} or check the data, and go on from {last_good()}"
            )

    @property
    def skipped(self) -> int:
        """Steps skipped so far; waits for the device."""
        return int(self.counts.sum())

    @property
    def by_cause(self) -> dict[str, int]:
        """How many steps each cause had skipped; waits for the device."""
        return {name: count for name, count in zip(self.causes, self.counts.tolist(), strict=False) if count}

    def get_extra_state(self) -> Tensor:
        """The causes, for the checkpoint: UTF-8, a name a line, with zeros behind, so that its shape is always one."""
        text = torch.tensor(list("\n".join(self.causes).encode()), dtype=torch.uint8)
        assert len(text) <= _NAMES_BYTES, "longer names than there is room for"
        return torch.nn.functional.pad(text, (0, _NAMES_BYTES - len(text)))

    def set_extra_state(self, state: Tensor) -> None:
        """The causes, from the checkpoint."""
        self._known.clear()
        names = bytes(state.tolist()).rstrip(b"\0").decode()
        self.causes = names.split("\n") if names else []
