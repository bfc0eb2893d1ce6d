"""Float64 references for the distributions, from their definitions and scipy's adaptive quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from scipy import integrate

BREAKS = (-60.0, -30.0, -15.0, -8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
"""Of log s, s ~ Exp(1): outside of them lies less than 1e-25 of the probability."""


def stick_logs(s: float, a: float, b: float) -> tuple[float, float]:
    """log v and log(1-v) of the v whose survival probability (1-v^a)^b is e^-s."""
    t = s / b
    if t > 36:  # 1 - e^-t rounds to 1: log v = -e^-t / a to the last digit
        log_x = -t - math.log(a)
    else:
        log_x = math.log(-math.log1p(-math.exp(-t)) if t > 0.69 else -math.log(-math.expm1(-t))) - math.log(a)
    x = math.exp(log_x)
    if x < 1e-8:
        return -x, log_x - x / 2
    return -x, math.log1p(-math.exp(-x)) if x > 0.69 else math.log(-math.expm1(-x))


def kumaraswamy_expectation(function: Callable[[float, float, float], float], a: float, b: float) -> float:
    """E[function(s, log v, log(1-v))] under Kumaraswamy(a, b), by quadrature over log s."""

    def integrand(y: float) -> float:
        s = math.exp(y)
        return math.exp(y - s) * function(s, *stick_logs(s, a, b))

    panels = pairwise(BREAKS)
    return sum(integrate.quad(integrand, *panel, epsabs=1e-12, epsrel=1e-11, limit=200)[0] for panel in panels)


def kl_to_beta(a: float, b: float, alpha: float) -> float:
    """∫ q log(q / p) with q = Kumaraswamy(a, b) and p = Beta(1, alpha), straight from the two densities."""

    def log_ratio(s: float, log_v: float, log_rest: float) -> float:
        log_q = math.log(a * b) + (a - 1) * log_v + (b - 1) * (-s / b)
        log_p = math.log(alpha) + (alpha - 1) * log_rest
        return log_q - log_p

    return kumaraswamy_expectation(log_ratio, a, b)


def close_enough(value: np.ndarray, reference: np.ndarray | float) -> np.ndarray:
    """Relative 1e-4 or absolute 1e-6, whichever is wider."""
    return np.abs(value - reference) <= np.maximum(1e-4 * np.abs(reference), 1e-6)
