"""Losses to one gradient, and a gradient to a step: balancers and Muon, which know nothing of models and data."""

from aime.optimization.aggregators import TorchJD
from aime.optimization.balancers import Balance, Balancer, Sum
from aime.optimization.choice import make_balancer, require_balancer
from aime.optimization.muon import Muon
from aime.optimization.rgb import RGB, RGBConfig

__all__ = ["RGB", "Balance", "Balancer", "Muon", "RGBConfig", "Sum", "TorchJD", "make_balancer", "require_balancer"]
