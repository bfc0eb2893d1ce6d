"""RGB: rotation-based gradient balancing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from aime.errors import AimeError
from aime.optimization.balancers import Balance, NamedParameters, Votes
from aime.optimization.gradients import ColumnRange, Layout, TaskGradients, top_level
from aime.optimization.rotation import RGBConfig, Rotation, rotate

__all__ = ["RGB", "RGBConfig"]


class RGB:
    """Rotates each task's gradient towards a running consensus, by an angle that balances conflict and proximity.

        ḡ_i = g_i / ‖g_i‖      d ← 0.9 d + 0.1 Σ v_i ḡ_i / Σ v_i      w_i: the unit part of d orthogonal to ḡ_i
        r_i = cos α_i ḡ_i + sin α_i w_i,  α_i ∈ [0, π/2)             g = Σ ‖g_i‖ r_i

    Each step takes a few descent steps on the angles, starting at their last values, to minimise
    1/(n(n−1)) Σ_{i<j} v_i v_j (1 − r_i·r_j) + λ/(4n) Σ v_i ‖r_i − ḡ_i‖², where v_i are the votes (default 1) and n
    is their sum. Norms are preserved.

    Gradients are rotated over the parameters that two or more active tasks reach; elsewhere the gradient is the plain
    sum. With `config.scope` "module" each top-level module is balanced separately. A task is active if its vote is
    above 0, its gradient is finite, and its norm over parameters shared with other active tasks is above `norm_floor`.
    The gradient of an inactive task is added unchanged, so a non-finite gradient reaches `.grad`, but consensus and
    angles stay unchanged and the step can be skipped.

    A step costs one backward pass per task, `[n,P]` memory and two passes over it; it does not wait for the device.

    Args:
        named_parameters: all on one device; frozen ones are ignored.
        config: the constants.
        module_of: maps a parameter name to its module, for scope "module"; default: the first part of the name.

    Reference: docs/mathematics.md, "RGB".

    >>> weight = torch.nn.Parameter(torch.tensor([1.0, 0.0]))
    >>> balancer = RGB([("weight", weight)])
    >>> balance = balancer.backward({"first": weight[0] ** 2, "second": weight.sum()})
    >>> bool(balance.angles.gt(0).all())
    True
    """

    no_host_sync = True

    def __init__(
        self,
        named_parameters: NamedParameters,
        config: RGBConfig | None = None,
        module_of: Callable[[str], str] = top_level,
    ) -> None:
        self.config = config or RGBConfig()
        self._layout = Layout(named_parameters, module_of if self.config.scope == "module" else None)
        self._blocks = max(self._layout.blocks, default=0) + 1
        self._consensus: Float[Tensor, "P"] = self._layout.zeros()
        self._angles: dict[str, Float[Tensor, "blocks"]] = {}
        self._key = "angle" if self.config.scope == "model" else "angles"
        self._gradients: TaskGradients | None = None
        self._votes: tuple[float | Tensor, ...] = ()

    def differentiate(self, losses: Mapping[str, Float[Tensor, ""]], votes: Votes | None = None) -> None:
        """Differentiate one batch's losses and keep the gradients until `resolve`.

        Args:
            losses: a scalar per task; the same tasks at every call of a step.
            votes: weights v_i of the tasks in [0, 1], default 1; a small loss weight alone would not reduce a task's
                influence on the consensus, since gradients are normalised.
        """
        self._votes = tuple((votes or {}).get(task, 1.0) for task in losses)
        if self._gradients is None:
            self._gradients = TaskGradients(self._layout, tuple(losses))
        self._gradients.add(losses)

    def backward(self, losses: Mapping[str, Float[Tensor, ""]], votes: Votes | None = None) -> Balance:
        """`differentiate` one batch and `resolve`."""
        self.differentiate(losses, votes)
        return self.resolve()

    @torch.no_grad()
    def resolve(self) -> Balance:
        """Balance the kept gradients, add the result to `.grad`, and drop them."""
        assert self._gradients is not None, "resolve follows differentiate"
        gradients, self._gradients = self._gradients, None
        gradients.average_over_ranks()
        device = gradients.rows.device
        self._consensus = self._consensus.to(device)
        with torch.autocast(device.type, enabled=False):
            return self._resolve(gradients)

    def _resolve(self, gradients: TaskGradients) -> Balance:
        ranges = gradients.column_ranges()
        products = _products(gradients, ranges, self._consensus)
        grams = products.grams
        votes = _numbers(self._votes, grams)
        zero_angles = grams.new_zeros(self._blocks)
        previous = torch.stack(
            [self._angles.get(task, zero_angles).to(grams.device) for task in gradients.tasks], dim=-1
        )

        norms = grams.diagonal(dim1=-2, dim2=-1).sum(0)[:-1].sqrt()
        finite = norms.isfinite()
        active, shared = _active(products, finite & (votes > 0), self._blocks, self.config.norm_floor)
        included = torch.nn.functional.pad(active, (0, 1), value=True)[products.blocks]
        counted = torch.where(shared[:, None, None] & included[:, None] & included[:, :, None], grams, 0)
        block_grams = grams.new_zeros(self._blocks, *grams.shape[1:]).index_add_(0, products.blocks, counted)
        rotation = rotate(block_grams, active, votes, previous, self.config)

        all_finite = finite.all()
        self._write(gradients, ranges, products, rotation, active, shared, all_finite)
        carried = torch.where(active & all_finite, rotation.angles, previous)
        for task, angle in zip(gradients.tasks, carried.unbind(-1), strict=True):
            # same memory at every step: a CUDA graph reads fixed addresses
            self._angles.setdefault(task, torch.empty_like(angle)).copy_(angle)
        turned = torch.where(active, rotation.angles, 0).sum(0) / active.sum(0).clamp_min(1)
        return Balance(gradients.tasks, norms, turned, _cosines(block_grams.sum(0)), active.any(0))

    def _write(
        self,
        gradients: TaskGradients,
        ranges: list[ColumnRange],
        products: _Products,
        rotation: Rotation,
        active: Bool[Tensor, "blocks n"],
        shared: Bool[Tensor, "groups"],
        all_finite: Bool[Tensor, ""],
    ) -> None:
        """Write the combined gradient to `.grad` and update the consensus in place, in one pass over the rows."""
        plain = torch.nn.functional.pad(torch.ones_like(rotation.angles), (0, 1))
        inactive = torch.nn.functional.pad((~active).to(plain.dtype), (0, 1))
        rotated = (rotation.gradient + inactive)[products.blocks]
        weights = torch.where(shared[:, None], rotated, plain[products.blocks]).to(gradients.rows.dtype)
        consensus = rotation.consensus.to(gradients.rows.dtype)
        updated = shared & all_finite
        gradient = self._layout.zeros()
        for part in ranges:
            group, columns = products.groups[part.tasks, part.block], slice(part.start, part.stop)
            rows, d = gradients.rows[:, columns], self._consensus[columns]
            torch.mv(rows.T, weights[group, :-1], out=gradient[columns])
            if len(part.tasks) > 1:
                gradient[columns] += weights[group, -1] * d
                new = torch.mv(rows.T, consensus[part.block, :-1]) + consensus[part.block, -1] * d
                # not a product: 0 times a non-finite gradient is NaN
                d.copy_(torch.where(updated[group], new, d))
        self._layout.add_to_grad(gradient, gradients.reached())

    def state_dict(self) -> dict[str, Tensor]:
        """The consensus as "consensus.PARAMETER" in each parameter's shape, and the tasks' angles.

        With scope "model", "angle.TASK" is a number; with "module", "angles.TASK" is `[modules]`, sorted by name.
        """
        pieces = zip(self._layout.names, self._layout.views(self._consensus), strict=True)
        return {
            **{f"consensus.{name}": piece.clone() for name, piece in pieces},
            **{f"{self._key}.{task}": angle.clone().squeeze(0) for task, angle in self._angles.items()},
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state from a `state_dict` of a balancer of the same parameters.

        Angles of modules from versions up to 0.1 start at 0, since their order is unknown.

        Raises:
            AimeError: if a consensus is missing, or a shape is wrong; the state is unchanged then.
        """
        pieces = dict(zip(self._layout.names, self._layout.views(self._consensus), strict=True))
        for name, piece in pieces.items():
            found = state.get(f"consensus.{name}")
            if found is None or found.shape != piece.shape:
                what = "missing" if found is None else f"found shape {list(found.shape)}"
                raise AimeError(
                    f"consensus.{name}: {what}, expected shape {list(piece.shape)}; resume with the model that the "
                    "balancer's state was saved with"
                )
        angles = {
            name.removeprefix(f"{self._key}."): torch.atleast_1d(angle)
            for name, angle in state.items()
            if name.startswith(f"{self._key}.")
        }
        of_modules = self._key == "angles"
        other = [name for name in state if name.startswith("angle." if of_modules else "angles.")]
        if any(not of_modules or state[name].ndim == 0 for name in other):
            raise AimeError(
                f"{other[0]}: was saved with another rgb.scope than {self.config.scope}; resume with the one that "
                "the balancer's state was saved with"
            )
        for task, angle in angles.items():
            if len(angle) != self._blocks:
                raise AimeError(
                    f"{self._key}.{task}: found {len(angle)}, expected {self._blocks}; resume with the one that "
                    "the balancer's state was saved with"
                )
        for name, piece in pieces.items():
            piece.copy_(state[f"consensus.{name}"])
        self._angles = {task: angle.to(piece.device, torch.float64, copy=True) for task, angle in angles.items()}


class _Products(NamedTuple):
    """Gram matrices of groups of parameters: a group is reached by one set of tasks and lies in one block."""

    grams: Float[Tensor, "groups n+1 n+1"]
    members: Bool[Tensor, "groups n"]
    blocks: Int[Tensor, "groups"]
    groups: dict[tuple[tuple[int, ...], int], int]
    """The index of each set of tasks and block."""


def _products(gradients: TaskGradients, ranges: list[ColumnRange], consensus: Float[Tensor, "P"]) -> _Products:
    """The Gram matrices, in one pass over the gradients."""
    grams: dict[tuple[tuple[int, ...], int], Tensor] = {}
    for part in ranges:
        gram, kind = gradients.gram(part, consensus), (part.tasks, part.block)
        grams[kind] = grams[kind] + gram if kind in grams else gram
    size = len(gradients.tasks)
    stacked = torch.stack([*grams.values()]) if grams else gradients.rows.new_zeros(0, size + 1, size + 1).double()
    members = [[float(task in tasks) for task in range(size)] for tasks, _ in grams]
    return _Products(
        stacked,
        torch.stack([_numbers(row, stacked) for row in members]).bool() if members else stacked[:, 1:, 0].bool(),
        _numbers([float(block) for _, block in grams], stacked).long() if grams else stacked[:, 0, 0].long(),
        {kind: place for place, kind in enumerate(grams)},
    )


def _active(
    products: _Products, candidates: Bool[Tensor, "n"], blocks: int, floor: float
) -> tuple[Bool[Tensor, "blocks n"], Bool[Tensor, "groups"]]:
    """Per block, the largest set of tasks whose norms over parameters shared within the set are above the floor.

    Returns these sets and the shared groups. Removing a task can leave another without shared parameters, so there
    are as many rounds as tasks.
    """
    squares = products.grams.diagonal(dim1=-2, dim2=-1)[:, :-1]
    active = candidates.expand(blocks, -1)
    shared = _shared(products, active)
    for _ in range(len(candidates)):
        counted = torch.where(shared[:, None], squares, 0)
        norms = squares.new_zeros(blocks, len(candidates)).index_add_(0, products.blocks, counted).sqrt()
        active = active & (norms > floor)
        shared = _shared(products, active)
    return active, shared


def _shared(products: _Products, active: Bool[Tensor, "blocks n"]) -> Bool[Tensor, "groups"]:
    return (products.members & active[products.blocks]).sum(-1) >= 2


def _cosines(gram: Float[Tensor, "n+1 n+1"]) -> Float[Tensor, "n n"]:
    """Cosines between the task gradients; 0 if either is zero."""
    norms = gram.diagonal()[:-1].clamp_min(0).sqrt()
    inverse = torch.where(norms > 0, 1 / norms, 0)
    return inverse[:, None] * gram[:-1, :-1] * inverse


def _numbers(values: Sequence[float | Tensor], like: Float[Tensor, "..."]) -> Float[Tensor, "n"]:
    """A vector of a few numbers on a device, filled there: a copy from the host would wait for the device."""
    return torch.stack([value.to(like) if isinstance(value, Tensor) else like.new_full((), value) for value in values])
