"""Rotation of task gradients, computed from their Gram matrix.

All vectors lie in the span of the n gradients and the consensus d. They are rows of coefficients over the basis
(g_1, ..., g_n, d), `[n+1]`, and u·v is u G vᵀ with the Gram matrix G of the basis. Leading axes are batch axes. Nothing
branches on a value or waits for the device.
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
"""Norm of d, a mean of unit vectors, below which the gradients cancel up to rounding."""

_NO_HELPER = 1e-5
"""Sine of the angle between d and ±ḡ below which w is determined by rounding."""


@dataclass(frozen=True)
class RGBConfig:
    """The constants of rotation-based gradient balancing.

    Raises:
        AimeError: if a number is out of its range.
    """

    scope: Literal["model", "module"] = "model"
    """The parameters that rotate as one vector: all shared parameters, or those of each top-level module."""
    decay: ClassVar[float] = 0.9
    """Share of the consensus that a step keeps, in [0, 1)."""
    proximity: ClassVar[float] = 1.0
    """λ ≥ 0, the weight of the distance from a task's own gradient."""
    angle_steps: int = 3
    """Descent steps on the angles in each training step, 0 or more; 0 keeps them at 0, which is the plain sum."""
    angle_rate: ClassVar[float] = 0.2
    """Length of a descent step, above 0."""
    aligned: ClassVar[float] = 0.999
    """Cosine with the consensus, in (0, 1], above which a task is not rotated."""
    norm_floor: ClassVar[float] = 1e-6
    """Gradient norm, 0 or more, up to which a task is inactive: a smaller gradient is noise after normalisation."""

    def __post_init__(self) -> None:
        expect_at_least_zero(self, "angle_steps", of="rgb")


class Rotation(NamedTuple):
    """The result of a rotation."""

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
    """Update the consensus and the angles, and rotate.

        d ← decay d + (1 − decay) Σ v_i ḡ_i / Σ v_i              w_i = (d − (ḡ_i·d) ḡ_i) / ‖…‖
        r_i = cos α_i ḡ_i + sin α_i w_i                          g = Σ ‖g_i‖ r_i

    Args:
        gram: of the task gradients and, last, the previous consensus; float64, zero in the rows of inactive tasks.
        active: True for active tasks, whose norms are above 0.
        votes: weights v_i in [0, 1], above 0 for active tasks.
        angles: α_i of the previous step, in [0, π/2).
        config: the constants.
    """
    norms = gram.diagonal(dim1=-2, dim2=-1)[..., :-1].clamp_min(0).sqrt()
    units = torch.nn.functional.pad(torch.where(active, 1 / norms, 0).diag_embed(), (0, 1))
    votes = torch.where(active, votes, 0)
    shares = votes / votes.sum(-1, keepdim=True).clamp_min(torch.finfo(votes.dtype).tiny)
    own = torch.zeros_like(gram[..., -1])
    own[..., -1] = config.decay
    consensus = own + (1 - config.decay) * _weighted_sum(shares, units)

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
    rotated, _ = _rotated(angles, units, helpers)
    return Rotation(_weighted_sum(norms, rotated), consensus, angles, units @ gram @ units.mT)


def angle_slopes(
    angles: Float[Tensor, "*N n"],
    units: Float[Tensor, "*N n n+1"],
    helpers: Float[Tensor, "*N n n+1"],
    gram: Float[Tensor, "*N n+1 n+1"],
    votes: Float[Tensor, "*N n"],
    proximity: float,
) -> Float[Tensor, "*N n"]:
    """The derivatives by each α_i of conflict plus distance from the task's own gradient.

        1/(n(n−1)) Σ_{i<j} v_i v_j (1 − r_i·r_j) + λ/(4n) Σ v_i ‖r_i − ḡ_i‖²

    ‖r_i − ḡ_i‖² is 2 − 2 cos α_i, since ḡ_i and w_i are orthonormal; n is the sum of the votes, at least 2. For
    inactive tasks, `votes` and the rows of `units` and `helpers` are zero.
    """
    count = votes.sum(-1, keepdim=True).clamp_min(2)
    rotated, derivatives = _rotated(angles, units, helpers)
    counted = votes[..., None] * rotated
    others = counted.sum(-2, keepdim=True) - counted
    conflict = -((derivatives @ gram) * others).sum(-1) / (count * (count - 1))
    return votes * (conflict + proximity / (2 * count) * angles.sin())


def _rotated(
    angles: Float[Tensor, "*N n"], units: Float[Tensor, "*N n n+1"], helpers: Float[Tensor, "*N n n+1"]
) -> tuple[Float[Tensor, "*N n n+1"], Float[Tensor, "*N n n+1"]]:
    """The rotated vectors r_i and their derivatives by α_i."""
    cosine, sine = angles.cos()[..., None], angles.sin()[..., None]
    return cosine * units + sine * helpers, cosine * helpers - sine * units


def _weighted_sum(weights: Float[Tensor, "*N n"], rows: Float[Tensor, "*N n n+1"]) -> Float[Tensor, "*N n+1"]:
    return (weights[..., None, :] @ rows)[..., 0, :]
