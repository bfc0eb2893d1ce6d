"""Losses to one gradient: balancers, which know nothing of models and data."""

from aime.optimization.aggregators import TorchJD
from aime.optimization.balancers import Balance, Balancer, Sum
from aime.optimization.choice import make_balancer, require_balancer
from aime.optimization.rgb import RGB, RGBConfig

__all__ = ["RGB", "Balance", "Balancer", "RGBConfig", "Sum", "TorchJD", "make_balancer", "require_balancer"]
