"""Balancers, which combine several losses into one gradient, and the optimizer Muon; independent of models and data."""

from aime.optimization.aggregators import TorchJD
from aime.optimization.balancers import Balance, Balancer, Sum
from aime.optimization.choice import make_balancer, require_balancer
from aime.optimization.muon import Muon
from aime.optimization.rgb import RGB, RGBConfig

__all__ = ["RGB", "Balance", "Balancer", "Muon", "RGBConfig", "Sum", "TorchJD", "make_balancer", "require_balancer"]
