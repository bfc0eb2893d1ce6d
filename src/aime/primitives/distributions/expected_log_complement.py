"""E[log(1-v)] of a Kumaraswamy variable: the term of its KL to a Beta that has no closed form.

With the survival function P(V > v) = (1-v^a)^b and partial integration,

    -E[log(1-v)] = ∫_0^1 (1-v^a)^b / (1-v) dv = ∫_{-∞}^{∞} σ(y) (1-σ(y)^a)^b dy,    v = σ(y).

The trapezoidal rule converges exponentially on the right-hand form (its integrand is analytic and decays at both ends),
but needs hundreds of nodes at large a and b. So the integral is computed once on a grid of Chebyshev points over
|log a|, |log b| <= log 50, where it is analytic, and a training step evaluates the interpolating polynomial (error
about 1e-9). The series Σ_m B(m/a, b) / (m + ab) is the same quantity, but converges too slowly at small b.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

PARAMETER_LIMIT = 50.0
"""Kumaraswamy parameters a and b lie in [1/50, 50]."""

LOG_LIMIT = math.log(PARAMETER_LIMIT)
DEGREE = 44
"""Number of Chebyshev polynomials of each of log a and log b."""
SLACK = 1e-6
"""Tolerance for rounding of log a / log 50 beyond ±1; the polynomial is equally accurate there."""


def expected_log_complement(log_a: Float[Tensor, "..."], log_b: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """E[log(1-v)] in nats under Kumaraswamy(a, b), in float64 and differentiable once.

    Args:
        log_a: any shape, in [-log 50, log 50]; outside of it the result is NaN.
        log_b: same shape and range.
    """
    value, _, _ = _interpolate(log_a.double().contiguous(), log_b.double().contiguous())
    return value


def integrate_log_complement(
    log_a: Float[Tensor, "..."], log_b: Float[Tensor, "..."], step: float = 0.05
) -> Float[Tensor, "..."]:
    """E[log(1-v)] by the trapezoidal rule in y = logit v, in float64.

    Beyond the last node the integrand is a^b e^(-by) to 1e-11, and the rest of the sum is a geometric series.
    """
    nodes = torch.arange(-36.0, 28.0 + step / 2, step, dtype=torch.float64, device=log_a.device)
    log_v = -F.softplus(-nodes)
    a, b = log_a.double().exp()[..., None], log_b.double().exp()[..., None]
    integrand = torch.exp(log_v + b * torch.log(-torch.expm1(a * log_v)))
    tail = integrand[..., -1] / -torch.expm1(-b[..., 0] * step)
    return -step * (integrand[..., :-1].sum(-1) + tail)


@functools.cache
def _coefficients(device: torch.device) -> Float[Tensor, "3 degree degree"]:
    """Chebyshev coefficients in (log a, log b) / log 50 of the integral and of its two derivatives by log a, log b."""
    angles = math.pi * (torch.arange(DEGREE, dtype=torch.float64) + 0.5) / DEGREE
    points = LOG_LIMIT * torch.cos(angles)
    values = integrate_log_complement(points[:, None].expand(DEGREE, DEGREE), points.expand(DEGREE, DEGREE))
    order = torch.arange(DEGREE, dtype=torch.float64)
    transform = torch.cos(order[:, None] * angles) * (2 / DEGREE)
    transform[0] /= 2
    integral = transform @ values @ transform.T
    # T_n' = 2n (T_{n-1} + T_{n-3} + …), with T_0 halved
    above = (order[None] > order[:, None]) & ((order[None] - order[:, None]) % 2 == 1)
    derive = torch.where(above, 2 * order[None], 0.0) / LOG_LIMIT
    derive[0] /= 2
    return torch.stack([integral, derive @ integral, integral @ derive.T]).to(device)


def _chebyshev(position: Float[Tensor, " N"]) -> Float[Tensor, "N degree"]:
    """T_0 … T_{degree-1} at positions in [-1, 1], by T_{n+1} = 2x T_n - T_{n-1}."""
    polynomials = [torch.ones_like(position), position]
    twice = 2 * position
    while len(polynomials) < DEGREE:
        polynomials.append(torch.addcmul(-polynomials[-2], twice, polynomials[-1]))
    return torch.stack(polynomials, dim=-1)


@torch.library.custom_op("aime::expected_log_complement", mutates_args=())
def _interpolate(log_a: Tensor, log_b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The expectation and its derivatives by log a and log b, as one operation that compilers do not trace."""
    positions = torch.stack([log_a.flatten(), log_b.flatten()]) / LOG_LIMIT
    inside = (positions.abs() <= 1 + SLACK).all(0)
    in_a, in_b = _chebyshev(positions.flatten()).unflatten(0, (2, -1))
    results = ((in_a @ _coefficients(log_a.device)) * in_b).sum(-1)
    value, by_a, by_b = torch.where(inside, results, torch.nan).reshape(3, *log_a.shape).unbind(0)
    return value.clone(), by_a.clone(), by_b.clone()


@_interpolate.register_fake
def _(log_a: Tensor, log_b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(log_a), torch.empty_like(log_a), torch.empty_like(log_a)


def _keep_derivatives(ctx: torch.autograd.function.FunctionCtx, inputs: object, output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[1:])


def _backward(ctx: torch.autograd.function.FunctionCtx, upstream: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    by_log_a, by_log_b = ctx.saved_tensors  # type: ignore[attr-defined]
    return upstream * by_log_a, upstream * by_log_b


_interpolate.register_autograd(_backward, setup_context=_keep_derivatives)
