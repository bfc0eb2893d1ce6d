"""The priors to choose from by `model.prior.kind`: one file each, and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aime.dynamics.prior import DirichletProcessPrior, PriorConfig
from aime.dynamics.single_gaussian_prior import SingleGaussianPrior

Prior = DirichletProcessPrior | SingleGaussianPrior

PRIORS: Mapping[str, Callable[[PriorConfig, int, int, int], Prior]] = {
    "mixture": DirichletProcessPrior,
    "single_gaussian": SingleGaussianPrior,
}
"""By name: from config and the widths of belief, context and latent."""
