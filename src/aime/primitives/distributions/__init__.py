"""Probability distributions with `log_prob`, samples, means and divergences.

All compute in at least float32, also under autocast: no operation here is subject to autocast, and bfloat16 parameters
are promoted first.
"""

from __future__ import annotations

from aime.primitives.distributions.censored import CensoredGaussian, CensoredMixture
from aime.primitives.distributions.expected_log_complement import PARAMETER_LIMIT
from aime.primitives.distributions.gamma import GammaPosterior
from aime.primitives.distributions.gaussian import DiagonalGaussian
from aime.primitives.distributions.kumaraswamy import Kumaraswamy, StickSample
from aime.primitives.distributions.mixture import (
    GaussianMixture,
    MixtureSample,
    Pickable,
    from_uniforms,
    mode_of,
    sample_of,
)
from aime.primitives.distributions.stick_breaking import log_mixture_weights, stick_breaking_kl
from aime.primitives.distributions.two_hot import TwoHot

__all__ = [
    "PARAMETER_LIMIT",
    "CensoredGaussian",
    "CensoredMixture",
    "DiagonalGaussian",
    "GammaPosterior",
    "GaussianMixture",
    "Kumaraswamy",
    "MixtureSample",
    "Pickable",
    "StickSample",
    "TwoHot",
    "from_uniforms",
    "log_mixture_weights",
    "mode_of",
    "sample_of",
    "stick_breaking_kl",
]
