"""RGB: rotation-based gradient balancing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from aime.errors import AimeError
from aime.optimization.balancers import Balance, NamedParameters, Votes
from aime.optimization.gradients import Layout, Run, TaskGradients, top_level
from aime.optimization.rotation import RGBConfig, Rotation, rotate

__all__ = ["RGB", "RGBConfig"]


class RGB:
    """Turns each task's gradient towards a running consensus of all, by an angle that trades conflict for closeness.

        ḡ_i = g_i / ‖g_i‖      d ← 0.9 d + 0.1 Σ v_i ḡ_i / Σ v_i      w_i: the unit part of d orthogonal to ḡ_i
        r_i = cos α_i ḡ_i + sin α_i w_i,  α_i ∈ [0, π/2)             g = Σ ‖g_i‖ r_i

    The angles take a few descent steps, from where they were, on
    1/(n(n−1)) Σ_{i<j} v_i v_j (1 − r_i·r_j) + λ/(4n) Σ v_i ‖r_i − ḡ_i‖². Norms are kept: a task that turns still
    counts as much. The votes v_i are 1, and n their number, but for tasks that are given less.

    What is rotated are the gradients over the parameters that two or more active tasks reach; elsewhere, and with a
    single active task everywhere, the gradient is the plain sum. With `config.scope` "module" all of this is done in
    each top-level module by itself, so that a task whose gradient is large in one does not push the others. A task is
    active if its vote is above 0, its gradient is finite, and that gradient's norm over the
    parameters it shares with other active tasks is above `norm_floor`. An inactive task's gradient is added as it is.
    A gradient that is not finite thus arrives in `.grad`, and leaves consensus and angles as they were: whoever then
    skips the step has lost nothing.

    A step costs one backward pass per task and one row of P numbers for each; the rest is two passes over these rows
    and algebra on matrices of n+1. No step waits for the device.

    Args:
        named_parameters: those to train, all on one device; frozen ones are left out.
        config: the constants.
        module_of: the module that a parameter belongs to by its name, for the scope "module"; by default the first part
            of the name.

    Reference: docs/mathematics.md, "RGB".

    >>> weight = torch.nn.Parameter(torch.tensor([1.0, 0.0]))
    >>> balancer = RGB([("weight", weight)])
    >>> balance = balancer.backward({"first": weight[0] ** 2, "second": weight.sum()})
    >>> bool(balance.angles.gt(0).all())
    True
    """

    waits_for_nothing = True

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
        self._held: TaskGradients | None = None
        self._votes: tuple[float | Tensor, ...] = ()

    def differentiate(self, losses: Mapping[str, Float[Tensor, ""]], votes: Votes | None = None) -> None:
        """Differentiate one batch's losses and hold their gradients until `resolve`.

        Args:
            losses: a scalar for every task, the same tasks at every call of a step.
            votes: weights v_i in [0, 1] of the tasks, 1 if absent. Normalising would give a full one to a task that is
                being phased in, or that is meant to lean only a little. At 0 the task's gradient is added as it is.
        """
        self._votes = tuple((votes or {}).get(task, 1.0) for task in losses)
        if self._held is None:
            self._held = TaskGradients(self._layout, tuple(losses))
        self._held.add(losses)

    def backward(self, losses: Mapping[str, Float[Tensor, ""]], votes: Votes | None = None) -> Balance:
        """`differentiate` one batch and `resolve`."""
        self.differentiate(losses, votes)
        return self.resolve()

    @torch.no_grad()
    def resolve(self) -> Balance:
        """Balance the gradients held, add the result to `.grad`, and forget them."""
        assert self._held is not None, "resolve follows differentiate"
        held, self._held = self._held, None
        held.average_over_ranks()
        device = held.rows.device
        self._consensus = self._consensus.to(device)
        with torch.autocast(device.type, enabled=False):
            return self._resolve(held)

    def _resolve(self, held: TaskGradients) -> Balance:
        runs = held.runs()
        products = _products(held, runs, self._consensus)
        grams = products.grams
        votes = _numbers(self._votes, grams)
        still = grams.new_zeros(self._blocks)
        before = torch.stack([self._angles.get(task, still).to(grams.device) for task in held.tasks], dim=-1)

        norms = grams.diagonal(dim1=-2, dim2=-1).sum(0)[:-1].sqrt()
        finite = norms.isfinite()
        active, shared = _active(products, finite & (votes > 0), self._blocks, self.config.norm_floor)
        among = torch.nn.functional.pad(active, (0, 1), value=True)[products.blocks]
        counted = torch.where(shared[:, None, None] & among[:, None] & among[:, :, None], grams, 0)
        in_blocks = grams.new_zeros(self._blocks, *grams.shape[1:]).index_add_(0, products.blocks, counted)
        rotation = rotate(in_blocks, active, votes, before, self.config)

        sound = finite.all()
        self._write(held, runs, products, rotation, active, shared, sound)
        carried = torch.where(active & sound, rotation.angles, before)
        for task, angle in zip(held.tasks, carried.unbind(-1), strict=True):
            # in the same memory at every step, where a recorded step looks for it
            self._angles.setdefault(task, torch.empty_like(angle)).copy_(angle)
        turned = torch.where(active, rotation.angles, 0).sum(0) / active.sum(0).clamp_min(1)
        return Balance(held.tasks, norms, turned, _cosines(in_blocks.sum(0)), active.any(0))

    def _write(
        self,
        held: TaskGradients,
        runs: list[Run],
        products: _Products,
        rotation: Rotation,
        active: Bool[Tensor, "blocks n"],
        shared: Bool[Tensor, "groups"],
        sound: Bool[Tensor, ""],
    ) -> None:
        """The one pass that combines: the gradient to `.grad`, the consensus in place."""
        plain = torch.nn.functional.pad(torch.ones_like(rotation.angles), (0, 1))
        inactive = torch.nn.functional.pad((~active).to(plain.dtype), (0, 1))
        rotated = (rotation.gradient + inactive)[products.blocks]
        weights = torch.where(shared[:, None], rotated, plain[products.blocks]).to(held.rows.dtype)
        consensus = rotation.consensus.to(held.rows.dtype)
        moved = shared & sound
        gradient = self._layout.zeros()
        for run in runs:
            group, columns = products.groups[run.tasks, run.block], slice(run.start, run.stop)
            rows, d = held.rows[:, columns], self._consensus[columns]
            torch.mv(rows.T, weights[group, :-1], out=gradient[columns])
            if len(run.tasks) > 1:
                gradient[columns] += weights[group, -1] * d
                new = torch.mv(rows.T, consensus[run.block, :-1]) + consensus[run.block, -1] * d
                # where rather than a product: a gradient that is not finite would come through a weight of zero
                d.copy_(torch.where(moved[group], new, d))
        self._layout.add_to_grad(gradient, held.reached())

    def state_dict(self) -> dict[str, Tensor]:
        """The consensus as "consensus.PARAMETER" in each parameter's shape, and the angles of the tasks seen.

        "angle.TASK" is one number; where each module has its own, "angles.TASK" is `[modules]`, sorted by name.
        """
        pieces = zip(self._layout.names, self._layout.views(self._consensus), strict=True)
        return {
            **{f"consensus.{name}": piece.clone() for name, piece in pieces},
            **{f"{self._key}.{task}": angle.clone().squeeze(0) for task, angle in self._angles.items()},
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state_dict`, of this balancer or of one of the same parameters.

        Angles of modules from versions up to 0.1 are not read, since their order is not known: they start at 0.

        Raises:
            AimeError: if the consensus of a parameter is missing or it or an angle has another shape; nothing is
                changed then.
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
    """Inner products, apart for each set of tasks that reach the same parameters of the same block."""

    grams: Float[Tensor, "groups n+1 n+1"]
    members: Bool[Tensor, "groups n"]
    blocks: Int[Tensor, "groups"]
    groups: dict[tuple[tuple[int, ...], int], int]
    """The place of each set and block."""


def _products(held: TaskGradients, runs: list[Run], consensus: Float[Tensor, "P"]) -> _Products:
    """One pass over the gradients."""
    grams: dict[tuple[tuple[int, ...], int], Tensor] = {}
    for run in runs:
        gram, kind = held.gram(run, consensus), (run.tasks, run.block)
        grams[kind] = grams[kind] + gram if kind in grams else gram
    size = len(held.tasks)
    stacked = torch.stack([*grams.values()]) if grams else held.rows.new_zeros(0, size + 1, size + 1).double()
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
    """In each block, the largest set of tasks whose norms over what two or more of the set reach are above the floor.

    Returns these sets and the groups of parameters so shared. A task that drops out may leave another with nothing to
    share, so it takes as many rounds as there are tasks.
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
    """Of the task gradients; 0 where one of them is zero."""
    norms = gram.diagonal()[:-1].clamp_min(0).sqrt()
    inverse = torch.where(norms > 0, 1 / norms, 0)
    return inverse[:, None] * gram[:-1, :-1] * inverse


def _numbers(values: Sequence[float | Tensor], like: Float[Tensor, "..."]) -> Float[Tensor, "n"]:
    """A few numbers on a device; filled there, as a copy from the host would wait for all that the device has to do."""
    return torch.stack([value.to(like) if isinstance(value, Tensor) else like.new_full((), value) for value in values])
