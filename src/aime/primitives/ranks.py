"""Communication between the processes of data-parallel training, called ranks.

Without `torch.distributed` there is one rank, and all functions are trivial.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable


def ranks() -> int:
    """The number of ranks: 1 unless `torch.distributed` is initialised."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process, 0 to `ranks()` - 1."""
    return distributed.get_rank() if ranks() > 1 else 0


def average_over_ranks(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their means over the ranks, in place, with one collective.

    Every rank must pass the same shapes in the same order.
    """
    if not tensors or ranks() == 1:
        return
    if len(tensors) == 1 and tensors[0].is_contiguous():
        distributed.all_reduce(tensors[0])
        tensors[0].div_(ranks())
        return
    packed = torch.cat([each.flatten() for each in tensors])
    average_over_ranks([packed])
    for each, mean in zip(tensors, packed.split([each.numel() for each in tensors]), strict=True):
        each.copy_(mean.view(each.shape))


def total_over_ranks(value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The sum of a tensor over the ranks, differentiable.

    For a loss that every rank computes from such sums, `average_over_ranks` of the weights' gradients gives the
    gradient of a single rank with all batches.
    """
    return _Total.apply(value) if ranks() > 1 else value


def gather_over_ranks(value: Float[Tensor, "*shape"]) -> Float[Tensor, "ranks *shape"]:
    """The stacked tensors of all ranks, of equal shape; differentiable like `total_over_ranks`."""
    after = [0, 0] * value.ndim
    return total_over_ranks(F.pad(value[None], [*after, rank(), ranks() - 1 - rank()]))


def share_from_first_rank(tensors: Iterable[Tensor]) -> None:
    """Overwrite the tensors of all ranks by those of rank 0."""
    if ranks() == 1:
        return
    for each in tensors:
        shared = each.detach().contiguous()
        distributed.broadcast(shared, 0)
        each.detach().copy_(shared)


def from_first_rank(number: float) -> float:
    """The number of rank 0."""
    return _on_host(0.0 if rank() else number)


def any_rank(flag: bool) -> bool:
    """Whether the flag is true on any rank; waits for all ranks."""
    return _on_host(float(flag)) > 0


def sum_on_host(count: int) -> int:
    """The sum of a count over the ranks."""
    return round(_on_host(count))


def _on_host(number: float) -> float:
    """The sum over the ranks, without waiting for a GPU."""
    if ranks() == 1:
        return number
    total = torch.tensor(number, dtype=torch.float64)
    distributed.all_reduce(total)
    return total.item()


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.contiguous().clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # the gradient is the same on all ranks, so its sum needs no collective
        return gradient * ranks()
