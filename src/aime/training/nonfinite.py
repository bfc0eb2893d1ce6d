"""Steps with a non-finite loss or gradient: skipped, counted, and attributed to the term that caused them."""

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

MAX_CONSECUTIVE_SKIPS = 20
"""Training stops after this many skipped steps in a row: random draws alone do not explain so many."""

GRADIENT = "gradient"
"""The cause if every term is finite and the tasks' gradient norms are unknown."""

_NAMES_BYTES = 4096


class NonfiniteSteps(nn.Module):
    """Decides on the device whether a step is taken and counts skipped steps there, without host synchronisation.

    Optimizers receive `found_inf`, as from torch's gradient scaler, and then keep weights, moments and step count.
    Quantizer, replay, variance and balancer ignore non-finite values themselves.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("in_a_row", torch.zeros((), dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(64, dtype=torch.int64))
        self.causes: list[str] = []
        """The name of each entry of `counts`, in order of first appearance."""
        self._known: dict[tuple[str, ...], Tensor] = {}

    in_a_row: Tensor
    counts: Tensor

    @torch.no_grad()
    def skip_if_nonfinite(
        self,
        optimizers: Iterable[Optimizer],
        losses: Iterable[TaskLoss],
        norm: Float[Tensor, ""],
        balance: Balance | None = None,
    ) -> None:
        """Make the optimizers skip their next step if a loss or the gradient is not finite on any rank.

        Args:
            optimizers: of all trained weights; each supports `found_inf`, as torch's fused optimizers and Muon do.
            losses: of this rank.
            norm: of the gradient over all parameters and ranks.
            balance: its norms identify the task if the losses are finite and a gradient is not.
        """
        names, values = zip(*self._candidate_causes(losses, balance, norm), strict=True)
        bad = ~torch.stack([value.detach().float().isfinite() for value in values])
        found = bad.any().float()[None]
        average_over_ranks([found])
        for optimizer in optimizers:
            if getattr(optimizer, "found_inf", None) is None:
                optimizer.found_inf = torch.zeros_like(found[0])  # type: ignore[attr-defined]
            # same memory at every step: a CUDA graph writes to fixed addresses
            optimizer.found_inf.copy_(found[0] > 0)  # type: ignore[attr-defined]
        self._count(found[0] > 0, bad, names)

    def _candidate_causes(
        self, losses: Iterable[TaskLoss], balance: Balance | None, norm: Float[Tensor, ""]
    ) -> Iterator[tuple[str, Tensor]]:
        """Named values in order of precedence: the first that is not finite is the cause."""
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
        # a rank with finite losses and gradients skips with the others and counts the last name
        first = torch.where(bad.any(), bad.float().argmax(), len(bad) - 1)
        # indexing with a scalar tensor would synchronise with the host
        place = self._counters(names).index_select(0, first[None])
        self.counts.index_add_(0, place, skipped.long()[None])

    def _counters(self, names: tuple[str, ...]) -> Int[Tensor, " N"]:
        """The indices of names in `counts`; new names are appended."""
        if names not in self._known:
            self.causes += [name for name in names if name not in self.causes]
            assert len(self.causes) <= len(self.counts), "more names than counters"
            places = [self.causes.index(name) for name in names]
            self._known[names] = torch.tensor(places, device=self.counts.device)
        return self._known[names]

    def require_progress(self, rate_flag: str, last_checkpoint: Callable[[], str]) -> None:
        """Stop training if the last 20 or more steps were skipped; waits for the device.

        Args:
            rate_flag: the setting of the learning rate, for the message.
            last_checkpoint: returns where the last good weights are, for the message.

        Raises:
            AimeError: if the last 20 or more steps were skipped.
        """
        if (in_a_row := int(self.in_a_row)) >= MAX_CONSECUTIVE_SKIPS:
            causes = ", ".join(f"{name} ({count})" for name, count in self.by_cause.items())
            raise AimeError(
                f"{in_a_row} steps in a row were skipped, as these were not finite: {causes}; expected finite losses "
                f"and gradients: lower {rate_flag} or check the data, and resume from {last_checkpoint()}"
            )

    @property
    def skipped(self) -> int:
        """Steps skipped so far; waits for the device."""
        return int(self.counts.sum())

    @property
    def by_cause(self) -> dict[str, int]:
        """Number of skipped steps by cause; waits for the device."""
        return {name: count for name, count in zip(self.causes, self.counts.tolist(), strict=False) if count}

    def get_extra_state(self) -> Tensor:
        """The causes for the checkpoint: UTF-8, one name per line, zero-padded to a fixed size."""
        text = torch.tensor(list("\n".join(self.causes).encode()), dtype=torch.uint8)
        assert len(text) <= _NAMES_BYTES, "names exceed the fixed size"
        return torch.nn.functional.pad(text, (0, _NAMES_BYTES - len(text)))

    def set_extra_state(self, state: Tensor) -> None:
        """Read the causes from the checkpoint."""
        self._known.clear()
        names = bytes(state.tolist()).rstrip(b"\0").decode()
        self.causes = names.split("\n") if names else []
