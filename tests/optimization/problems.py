"""Tasks with known gradients, and RGB by its formulas on whole vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from aime.optimization.rgb import RGBConfig

SHAPES = ((3, 4), (5,), (2, 3, 2, 2), (), (7,))
SIZES = [torch.Size(shape).numel() for shape in SHAPES]
P = sum(SIZES)
EVERYTHING = (True,) * len(SHAPES)


def parameters(dtype: torch.dtype = torch.float64) -> dict[str, nn.Parameter]:
    """Parameters of several shapes, one of them with its channels last."""
    made = [torch.zeros(shape, dtype=dtype) for shape in SHAPES]
    made[2] = made[2].contiguous(memory_format=torch.channels_last)
    return {f"layer.{number}": nn.Parameter(each) for number, each in enumerate(made)}


def losses(
    named: dict[str, nn.Parameter], gradients: Float[Tensor, "tasks P"], reach: Sequence[Sequence[bool]]
) -> dict[str, Tensor]:
    """Linear losses with these gradients, each of the parameters that its task reaches."""
    tasks = {}
    for row, (gradient, reached) in enumerate(zip(gradients, reach, strict=True)):
        loss = torch.zeros((), dtype=gradient.dtype)
        for parameter, piece, is_reached in zip(named.values(), gradient.split(SIZES), reached, strict=True):
            if is_reached:
                loss = loss + (parameter * piece.view(parameter.shape)).sum()
        tasks[f"task{row}"] = loss
    return tasks


def flat_grad(named: dict[str, nn.Parameter]) -> Float[Tensor, "P"]:
    """`.grad` of all parameters as one vector, zero where there is none."""
    pieces = [torch.zeros_like(each) if each.grad is None else each.grad for each in named.values()]
    return torch.cat([piece.reshape(-1) for piece in pieces])


def clear(named: dict[str, nn.Parameter]) -> None:
    for each in named.values():
        each.grad = None


def columns(reach: Sequence[Sequence[bool]]) -> Bool[Tensor, "tasks P"]:
    """Which numbers each task reaches."""
    return torch.tensor(reach).repeat_interleave(torch.tensor(SIZES), dim=1)


class Reference:
    """RGB on whole vectors in float64, one formula after the other."""

    def __init__(self, tasks: int, config: RGBConfig | None = None) -> None:
        self.config = config or RGBConfig()
        self.consensus = torch.zeros(P, dtype=torch.float64)
        self.angles = torch.zeros(tasks, dtype=torch.float64)

    def step(
        self, gradients: Float[Tensor, "tasks P"], reach: Sequence[Sequence[bool]], ramps: Sequence[float]
    ) -> Float[Tensor, "P"]:
        """The balanced gradient."""
        config, reached = self.config, columns(reach)
        gradients = gradients.double() * reached
        active = [row for row, ramp in enumerate(ramps) if ramp > 0]
        while True:
            shared = reached[active].sum(0) >= 2
            remaining = [row for row in active if gradients[row][shared].norm() > config.norm_floor]
            if remaining == active:
                break
            active = remaining
        if len(active) < 2:
            return gradients.sum(0)

        n = len(active)
        units = torch.stack([gradients[row] * shared / gradients[row][shared].norm() for row in active])
        votes = torch.tensor([ramps[row] for row in active], dtype=torch.float64)
        mean = (votes[:, None] * units).sum(0) / votes.sum()
        moved = config.decay * self.consensus + (1 - config.decay) * mean
        self.consensus = torch.where(shared, moved, self.consensus)
        d = self.consensus * shared
        helpers = [self._helper(unit, d) for unit in units]
        turning = torch.tensor([helper is not None for helper in helpers])
        w = torch.stack([torch.zeros(P).double() if helper is None else helper for helper in helpers])

        angles = self.angles[active] * turning
        for _ in range(config.angle_steps):
            angles.requires_grad_(True)
            (slope,) = torch.autograd.grad(cost(angles, units, w, config.proximity, votes), angles)
            angles = ((angles.detach() - config.angle_rate * slope).clamp(0, torch.pi / 2)) * turning
        self.angles[active] = angles
        rotated = angles.cos()[:, None] * units + angles.sin()[:, None] * w
        result = sum(gradients[row][shared].norm() * r for row, r in zip(active, rotated, strict=True))
        idle = [row for row in range(len(gradients)) if row not in active]
        assert isinstance(result, Tensor)
        assert n >= 2
        return torch.where(shared, result + gradients[idle].sum(0), gradients.sum(0))

    def _helper(self, unit: Float[Tensor, "P"], d: Float[Tensor, "P"]) -> Float[Tensor, "P"] | None:
        if d.norm() < 1e-6 or unit @ d / d.norm() > self.config.aligned:
            return None
        across = d - (unit @ d) * unit
        return None if across.norm() < 1e-5 * d.norm() else across / across.norm()


def cost(
    angles: Float[Tensor, "n"],
    units: Float[Tensor, "n P"],
    helpers: Float[Tensor, "n P"],
    proximity: float,
    votes: Float[Tensor, "n"],
) -> Float[Tensor, ""]:
    """What the angles minimise."""
    n = max(2.0, float(votes.sum()))
    rotated = angles.cos()[:, None] * units + angles.sin()[:, None] * helpers
    pairs = [(i, j) for j in range(len(angles)) for i in range(j)]
    conflict = sum(
        (votes[i] * votes[j] * (1 - rotated[i] @ rotated[j]) for i, j in pairs), start=torch.zeros(()).double()
    )
    turned = (votes * (rotated - units).square().sum(1)).sum()
    return conflict / (n * (n - 1)) + proximity / (4 * n) * turned
