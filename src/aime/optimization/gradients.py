"""The gradients of several tasks as rows of one matrix."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from aime.optimization.balancers import NamedParameters
from aime.primitives.ranks import average_over_ranks

_COLUMNS = 2**18
"""Columns per inner product: float64 copies of all columns would double the memory."""


class ColumnRange(NamedTuple):
    """Consecutive columns, of parameters of one block, that the same tasks reach."""

    start: int
    stop: int
    tasks: tuple[int, ...]
    """Rows, ascending."""
    block: int
    """The index of the block."""


def top_level(name: str) -> str:
    """The top-level module of a parameter name."""
    return name.partition(".")[0]


class Layout:
    """The trainable parameters concatenated into one vector `[P]`, each in its memory order.

    With `block_of`, parameters are grouped in blocks by its value for their names; otherwise there is one block.
    """

    def __init__(self, named_parameters: NamedParameters, block_of: Callable[[str], str] | None = None) -> None:
        trainable = {name: parameter for name, parameter in named_parameters if parameter.requires_grad}
        self.names, self.parameters = list(trainable), list(trainable.values())
        modules = [block_of(name) if block_of else "" for name in self.names]
        places = {module: place for place, module in enumerate(sorted(set(modules)))}
        self.blocks = [places[module] for module in modules]
        self.bounds = list(itertools.accumulate((each.numel() for each in self.parameters), initial=0))

    def zeros(self, *rows: int) -> Float[Tensor, "*rows P"]:
        """Zeros `[*rows,P]` on the parameters' device, in their widest type, at least float32."""
        dtype = torch.float32
        for each in self.parameters:
            dtype = torch.promote_types(dtype, each.dtype)
        return torch.zeros(*rows, self.bounds[-1], dtype=dtype, device=self.parameters[0].device)

    def views(self, flat: Float[Tensor, "P"]) -> list[Tensor]:
        """Views of the vector in the parameters' shapes and strides, as fused optimizers require."""
        offset = flat.storage_offset()
        return [
            flat.as_strided(each.shape, each.stride(), offset + start)
            for each, start in zip(self.parameters, self.bounds, strict=False)
        ]

    def add_to_grad(self, flat: Float[Tensor, "P"], reached: list[bool]) -> None:
        """Add the vector to `.grad` of the reached parameters; a missing `.grad` becomes a view of the vector."""
        for parameter, gradient, is_reached in zip(self.parameters, self.views(flat), reached, strict=True):
            if not is_reached:
                continue
            if parameter.grad is None:
                parameter.grad = gradient.to(parameter.dtype)
            else:
                parameter.grad.add_(gradient)


class TaskGradients:
    """The task gradients of a step, summed over its batches, as rows of a matrix `[tasks,P]`."""

    def __init__(self, layout: Layout, tasks: tuple[str, ...]) -> None:
        self.layout, self.tasks = layout, tasks
        self.rows: Float[Tensor, "tasks P"] = layout.zeros(len(tasks))
        self._reached = [[False] * len(layout.parameters) for _ in tasks]

    def add(self, losses: Mapping[str, Float[Tensor, ""]]) -> None:
        """Differentiate the tasks' scalar losses, add the gradients to the rows, and free the graphs."""
        assert tuple(losses) == self.tasks, f"tasks {tuple(losses)} after {self.tasks} in one step"
        wanted = [row for row, task in enumerate(losses) if losses[task].requires_grad]
        for row in wanted:
            found = torch.autograd.grad(
                losses[self.tasks[row]], self.layout.parameters, retain_graph=row != wanted[-1], allow_unused=True
            )
            pairs = [
                (view, gradient)
                for view, gradient in zip(self.layout.views(self.rows[row]), found, strict=True)
                if gradient is not None
            ]
            if pairs:
                views, gradients = zip(*pairs, strict=True)
                torch._foreach_add_(views, gradients)
            self._reached[row] = [
                before or gradient is not None for before, gradient in zip(self._reached[row], found, strict=True)
            ]

    def average_over_ranks(self) -> None:
        """Replace every task's gradient by its mean over the ranks."""
        average_over_ranks([self.rows])

    def reached(self) -> list[bool]:
        """Whether any task reaches each parameter."""
        return [any(column) for column in zip(*self._reached, strict=True)]

    def column_ranges(self) -> list[ColumnRange]:
        """The columns that any task reaches, split where the set of tasks or the block changes."""
        bounds = self.layout.bounds
        ranges = []
        rows = range(len(self.tasks))
        reaching = [tuple(itertools.compress(rows, column)) for column in zip(*self._reached, strict=True)]
        kinds = list(zip(reaching, self.layout.blocks, strict=True))
        for (tasks, block), group in itertools.groupby(range(len(kinds)), key=kinds.__getitem__):
            columns = list(group)
            if tasks:
                ranges.append(ColumnRange(bounds[columns[0]], bounds[columns[-1] + 1], tasks, block))
        return ranges

    def gram(self, columns: ColumnRange, direction: Float[Tensor, "P"]) -> Float[Tensor, "n+1 n+1"]:
        """The Gram matrix, in float64, of the rows and a direction (last) over a range of columns."""
        total = self.rows.new_zeros(len(self.tasks) + 1, len(self.tasks) + 1, dtype=torch.float64)
        for start, stop in _pieces(columns):
            piece = torch.cat([self.rows[:, start:stop], direction[None, start:stop]]).double()
            total.addmm_(piece, piece.T)
        return total


def _pieces(columns: ColumnRange) -> Iterator[tuple[int, int]]:
    for start in range(columns.start, columns.stop, _COLUMNS):
        yield start, min(start + _COLUMNS, columns.stop)
