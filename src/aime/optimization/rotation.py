"""The algebra of a rotation: everything lies in the span of n gradients and the consensus, so a Gram matrix is enough.

Vectors are rows of coefficients over the basis (g_1, ..., g_n, d), `[n+1]`, and u·v is u G vᵀ with the Gram matrix G of
the basis. Several rotations are done at once, along the leading axes. Nothing here is larger than `[n+1,n+1]` for each,
branches on a value or waits for a device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aime.errors import expect_at_least_zero

_LARGEST_ANGLE = math.pi / 2 - 1e-6

_NO_CONSENSUS = 1e-6
"""A norm of d, which is a mean of unit vectors, that is left where gradients cancel but for rounding."""

_NO_HELPER = 1e-5
"""A sine between d and ±ḡ below which the helper's direction is rounding, too."""


@dataclass(frozen=True)
class RGBConfig:
    """The constants of rotation-based gradient balancing.

    Raises:
        AimeError: if a number is out of its range.
    """

    scope: Literal["model", "module"] = "model"
    """What turns as one vector: all parameters that tasks share, or those of each top-level module by themselves."""
    decay: ClassVar[float] = 0.9
    """Share of the consensus that a step keeps, in [0, 1)."""
    proximity: ClassVar[float] = 1.0
    """λ ≥ 0: how dear it is to turn away from a task's own gradient."""
    angle_steps: int = 3
    """Descent steps on the angles in each training step, 0 or more; 0 keeps them at 0, which is the plain sum."""
    angle_rate: ClassVar[float] = 0.2
    """Length of a descent step, above 0."""
    aligned: ClassVar[float] = 0.999
    """Cosine with the consensus, in (0, 1], above which a task is not rotated."""
    norm_floor: ClassVar[float] = 1e-6
    """Gradient norm, 0 or more, up to which a task has no vote: normalised, it would be a full vote of noise."""

    def __post_init__(self) -> None:
        expect_at_least_zero(self, "angle_steps", of="rgb")


class Rotation(NamedTuple):
    """What a rotation comes to."""

    gradient: Float[Tensor, "*N n+1"]
    """Σ ‖g_i‖ r_i over the active tasks, in the basis."""
    consensus: Float[Tensor, "*N n+1"]
    """The new d, in the basis."""
    angles: Float[Tensor, "*N n"]
    cosines: Float[Tensor, "*N n n"]


def rotate(
    gram: Float[Tensor, "*N n+1 n+1"],
    active: Bool[Tensor, "*N n"],
    votes: Float[Tensor, "n"],
    angles: Float[Tensor, "*N n"],
    config: RGBConfig,
) -> Rotation:
    """Move the consensus, choose the angles and rotate.

        d ← decay d + (1 − decay) Σ v_i ḡ_i / Σ v_i              w_i = (d − (ḡ_i·d) ḡ_i) / ‖…‖
        r_i = cos α_i ḡ_i + sin α_i w_i                          g = Σ ‖g_i‖ r_i

    Args:
        gram: of the task gradients and, last, the consensus before; float64, zero in the rows of inactive tasks.
        active: the tasks that take part; their norms are above 0.
        votes: weights v_i in [0, 1] in the consensus and in the conflict, above 0 where active.
        angles: α_i of the step before, in [0, π/2), where the descent starts.
        config: the constants.
    """
    norms = gram.diagonal(dim1=-2, dim2=-1)[..., :-1].clamp_min(0).sqrt()
    units = torch.nn.functional.pad(torch.where(active, 1 / norms, 0).diag_embed(), (0, 1))
    votes = torch.where(active, votes, 0)
    shares = votes / votes.sum(-1, keepdim=True).clamp_min(torch.finfo(votes.dtype).tiny)
    own = torch.zeros_like(gram[..., -1])
    own[..., -1] = config.decay
    consensus = own + (1 - config.decay) * _combined(shares, units)

    projected = (gram @ consensus[..., None])[..., 0]
    along = (units @ projected[..., None])[..., 0]
    squared = (consensus * projected).sum(-1, keepdim=True)
    length = squared.clamp_min(0).sqrt()
    across = (squared - along**2).clamp_min(0).sqrt()
    turning = active & (length > _NO_CONSENSUS) & (along <= config.aligned * length) & (across > _NO_HELPER * length)
    helpers = (consensus[..., None, :] - along[..., None] * units) / across[..., None]
    helpers = torch.where(turning[..., None], helpers, 0)

    angles = torch.where(turning, angles, 0)
    for _ in range(config.angle_steps):
        slopes = angle_slopes(angles, units, helpers, gram, votes, config.proximity)
        angles = torch.where(turning, (angles - config.angle_rate * slopes).clamp(0, _LARGEST_ANGLE), 0)
    rotated, _ = _turned(angles, units, helpers)
    return Rotation(_combined(norms, rotated), consensus, angles, units @ gram @ units.mT)


def angle_slopes(
    angles: Float[Tensor, "*N n"],
    units: Float[Tensor, "*N n n+1"],
    helpers: Float[Tensor, "*N n n+1"],
    gram: Float[Tensor, "*N n+1 n+1"],
    votes: Float[Tensor, "*N n"],
    proximity: float,
) -> Float[Tensor, "*N n"]:
    """The derivatives by each α_i of what the angles minimise, conflict and distance from the own gradient.

        1/(n(n−1)) Σ_{i<j} v_i v_j (1 − r_i·r_j) + λ/(4n) Σ v_i ‖r_i − ḡ_i‖²

    Here ‖r_i − ḡ_i‖² is 2 − 2 cos α_i, as ḡ_i and w_i are orthonormal, and n is the sum of the votes, 2 or more: a task
    with a vanishing vote turns the others as little as one that is not there. `votes` are 0 and the rows of `units` and
    `helpers` zero for tasks that are not active.
    """
    count = votes.sum(-1, keepdim=True).clamp_min(2)
    rotated, turned_further = _turned(angles, units, helpers)
    counted = votes[..., None] * rotated
    others = counted.sum(-2, keepdim=True) - counted
    conflict = -((turned_further @ gram) * others).sum(-1) / (count * (count - 1))
    return votes * (conflict + proximity / (2 * count) * angles.sin())


def _turned(
    angles: Float[Tensor, "*N n"], units: Float[Tensor, "*N n n+1"], helpers: Float[Tensor, "*N n n+1"]
) -> tuple[Float[Tensor, "*N n n+1"], Float[Tensor, "*N n n+1"]]:
    """The vectors r_i, and their derivatives by α_i."""
    cosine, sine = angles.cos()[..., None], angles.sin()[..., None]
    return cosine * units + sine * helpers, cosine * helpers - sine * units


def _combined(weights: Float[Tensor, "*N n"], rows: Float[Tensor, "*N n n+1"]) -> Float[Tensor, "*N n+1"]:
    return (weights[..., None, :] @ rows)[..., 0, :]
