"""Muon: gradient descent along the orthogonalized momentum of each matrix."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

_POLYNOMIALS = ((3.4445, -4.7750, 2.0315),) * 5
"""Coefficients a, b, c of the polynomials aσ + bσ³ + cσ⁵, applied to the singular values in turn."""

_RMS = 0.2
"""Root mean square of a step at learning rate 1, about that of AdamW."""

_EPSILON = 1e-7


def orthogonalized(matrices: Float[Tensor, "N rows columns"]) -> Float[Tensor, "N rows columns"]:
    """The matrices with singular values mapped to about [0.7, 1.2], except those below a thousandth of the norm.

    Five Newton-Schulz iterations, computed on the Gram matrix of the shorter side.

    Args:
        matrices: `[N,rows,columns]`, finite and of one shape; a zero matrix stays zero.

    Reference: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalized(matrices.mT).mT
    matrices = matrices / torch.linalg.matrix_norm(matrices, keepdim=True).clamp_min(_EPSILON)
    products = matrices @ matrices.mT
    factors: list[Tensor] = []
    for a, b, c in _POLYNOMIALS:
        if factors:
            products = factors[-1] @ products @ factors[-1]
        factor = torch.baddbmm(products, products, products, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        factors.append(factor)
    # the factors commute: all are polynomials of the same Gram matrix
    return functools.reduce(torch.matmul, factors) @ matrices


class Muon(Optimizer):
    """Steps along the orthogonalized momentum, about as long as AdamW's at the same learning rate.

    v ← μ v + (1 - μ) g, w ← (1 - ηλ) w - 0.2 η √max(n, m) · O(μ v + (1 - μ) g), for weights `[n,…]` reshaped to
    `[n,m]` with gradients g. Unlike `torch.optim.Muon` it supports convolutions, orthogonalizes matrices of one shape
    in one call, and skips a step if `found_inf` is 1, without host synchronisation.

    Reference: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; step length: Liu et al.
    2025, arXiv 2502.16982, equation 4.
    """

    found_inf: Float[Tensor, ""] | None
    """1 if the next step must change nothing, otherwise 0 or None; as torch's gradient scaler sets it."""

    def __init__(
        self,
        weights: Iterable[Tensor],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        """An optimizer of weights with two or more dimensions.

        Args:
            weights: the first dimension is that of the outputs.
            lr: η, 0 or more; may be changed in `param_groups`.
            weight_decay: λ, 0 or more.
            momentum: μ, in [0, 1).
        """
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.found_inf = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every weight that has a gradient; a closure is not supported."""
        assert closure is None, "Muon evaluates no loss"
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape[tuple(weight.flatten(1).shape)].append(weight)
            for weights in by_shape.values():
                self._update(weights, group)

    def _update(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        rate, decay, inertia = group["lr"], group["weight_decay"], group["momentum"]
        stored = [self._momentum(weight) for weight in weights]
        gradients = torch.stack([weight.grad.flatten(1) for weight in weights if weight.grad is not None])
        momenta = torch.stack([momentum.flatten(1) for momentum in stored])
        finite = torch.ones((), device=gradients.device) if self.found_inf is None else 1 - self.found_inf
        gradients = torch.where(finite > 0, gradients, momenta)
        momenta = momenta.lerp(gradients, 1 - inertia)
        nesterov = finite * gradients.lerp(momenta, inertia)
        steps = orthogonalized(nesterov) * (-_RMS * rate * math.sqrt(max(nesterov.shape[1:])))
        for weight, momentum, new, step in zip(weights, stored, momenta, steps, strict=True):
            momentum.copy_(new.view_as(momentum))
            weight.mul_(1 - rate * decay * finite).add_(step.reshape(weight.shape))

    def _momentum(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        return state["momentum"]
