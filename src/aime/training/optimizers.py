"""Optimizers: assignment of parameters, learning rates, and optimizer state by parameter name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from aime.errors import expect_at_least_zero
from aime.optimization import Muon
from aime.primitives.boundary_layers import BoundaryLayer
from aime.primitives.config_io import later

_PEAK = "initial_lr"
"""The key under which torch's schedulers keep the peak rate, too."""

_LAYERS = (nn.Linear, nn.Conv2d, nn.RNNBase, nn.RNNCellBase)

_MIN_MUON_SIZE = 8
"""Smallest number of outputs and inputs of a matrix for Muon: orthogonalisation does little to smaller ones."""


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer, its schedule, and the average of the weights.

    Raises:
        AimeError: if the rate is negative.
    """

    kind: Literal["muon", "adamw"] = field(default="muon", metadata=later(before="adamw"))
    """`muon` trains hidden matrices with Muon and all other weights with AdamW; `adamw` trains all with AdamW."""
    muon_factor: ClassVar[float] = 1.5
    """Muon's learning rate in units of `learning_rate`."""
    learning_rate: float = 1e-3
    """Peak, reached after `warmup` steps; it falls along half a cosine to a tenth at the end of the run."""
    warmup: ClassVar[int] = 30
    """Steps of linear warm-up."""
    weight_decay: float = 1e-4
    """Of matrices; other weights have none."""
    betas: ClassVar[tuple[float, float]] = (0.9, 0.99)
    clip: ClassVar[float] = 1.0
    """Largest global norm of the gradient of the loss per pixel value."""
    ema_decay: ClassVar[float] = 0.995
    """Decay of the averaged weights, warmed up as min(ema_decay, (1 + n) / (10 + n))."""

    def __post_init__(self) -> None:
        expect_at_least_zero(self, "learning_rate", of="optimizer")


def make_optimizers(
    model: nn.Module, config: OptimizerConfig, weights: Iterable[Tensor] | None = None
) -> tuple[Optimizer, ...]:
    """The optimizers of `weights` (default: all of the model); each weight is in exactly one.

    With `config.kind` "muon", Muon optimizes hidden matrices: weights of linear, convolutional and recurrent layers
    that are no `BoundaryLayer` and have at least 8 outputs and inputs. AdamW optimizes the rest: input and output
    layers, gains, biases, learned queries, positions and initial states.
    """
    trained = list(model.parameters() if weights is None else weights)
    hidden = {id(weight) for weight in _matrices(model)} if config.kind == "muon" else set()
    matrices = [weight for weight in trained if id(weight) in hidden]
    rest = [weight for weight in trained if id(weight) not in hidden]
    groups = [
        {"params": [weight for weight in rest if weight.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [weight for weight in rest if weight.ndim < 2], "weight_decay": 0.0},
    ]
    rate = config.learning_rate
    optimizers: list[Optimizer] = [AdamW(groups, lr=rate, betas=config.betas, fused=True)]
    if matrices:
        optimizers.append(Muon(matrices, config.muon_factor * rate, config.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group[_PEAK] = group["lr"]
    return tuple(optimizers)


def scale_learning_rates(optimizers: Iterable[Optimizer], factor: float) -> None:
    """Set every learning rate to `factor` times its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group[_PEAK] * factor


def _matrices(model: nn.Module) -> list[Tensor]:
    found: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, _LAYERS) and not isinstance(module, BoundaryLayer):
            found += [weight for weight in module.parameters(recurse=False) if _is_large_matrix(weight)]
    return found


def _is_large_matrix(weight: Tensor) -> bool:
    return weight.ndim >= 2 and min(weight.shape[:2]) >= _MIN_MUON_SIZE
