"""Muon: a matrix moves by its momentum with all singular values made nearly alike."""

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
"""a, b, c of the odd polynomials aσ + bσ³ + cσ⁵ that are applied to the singular values one after the other."""

_RMS = 0.2
"""Root mean square of a step at a learning rate of 1, about that of AdamW's."""

_EPSILON = 1e-7


def orthogonalized(matrices: Float[Tensor, "N rows columns"]) -> Float[Tensor, "N rows columns"]:
    """The matrices with singular values in about [0.7, 1.2], but for those below a thousandth of the norm.

    Five rounds of a Newton-Schulz iteration bring the singular values near 1 without finding them. They run on the
    products of rows, which are small where matrices are long.

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
    # polynomials of the same products: their order does not matter
    return functools.reduce(torch.matmul, factors) @ matrices


class Muon(Optimizer):
    """Steps of matrices along their orthogonalized momentum, as long as AdamW's at the same learning rate.

    v ← μ v + (1 - μ) g, w ← (1 - ηλ) w - 0.2 η √max(n, m) · O(μ v + (1 - μ) g), for weights `[n,…]` read as `[n,m]`
    with gradients g. A weight moves in all directions at once, also in those that its gradients hardly touch. It keeps
    one tensor for a weight, AdamW two. Unlike `torch.optim.Muon` it takes convolutions, orthogonalizes matrices of one
    shape in one call, and leaves out a step where `found_inf` says so, without waiting for the device.

    Reference: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the step's length: Liu et
    al. 2025, arXiv 2502.16982, equation 4.
    """

    found_inf: Float[Tensor, ""] | None
    """1 where the next step shall change nothing, else 0, which None is as well. As torch's gradient scaler sets it."""

    def __init__(
        self,
        weights: Iterable[Tensor],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        """Take on weights.

        Args:
            weights: of two or more dimensions, the first of them the outputs.
            lr: η, 0 or more; may be changed in `param_groups`.
            weight_decay: λ, 0 or more.
            momentum: μ, in [0, 1).
        """
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.found_inf = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every weight that has a gradient; takes no closure."""
        assert closure is None, "Muon evaluates no loss"
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    alike[tuple(weight.flatten(1).shape)].append(weight)
            for weights in alike.values():
                self._move(weights, group)

    def _move(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        rate, decay, inertia = group["lr"], group["weight_decay"], group["momentum"]
        kept = [self._momentum(weight) for weight in weights]
        gradients = torch.stack([weight.grad.flatten(1) for weight in weights if weight.grad is not None])
        momenta = torch.stack([momentum.flatten(1) for momentum in kept])
        sound = torch.ones((), device=gradients.device) if self.found_inf is None else 1 - self.found_inf
        gradients = torch.where(sound > 0, gradients, momenta)
        momenta = momenta.lerp(gradients, 1 - inertia)
        ahead = sound * gradients.lerp(momenta, inertia)
        steps = orthogonalized(ahead) * (-_RMS * rate * math.sqrt(max(ahead.shape[1:])))
        for weight, momentum, new, step in zip(weights, kept, momenta, steps, strict=True):
            momentum.copy_(new.view_as(momentum))
            weight.mul_(1 - rate * decay * sound).add_(step.reshape(weight.shape))

    def _momentum(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        return state["momentum"]
