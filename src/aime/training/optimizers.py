"""Which weights of a model are taught by which optimizer, and how fast."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from aime.optimization import Muon
from aime.primitives.ends import End

if TYPE_CHECKING:
    from aime.training.config import OptimizerConfig

_PEAK = "initial_lr"
"""Where torch's schedulers, too, keep the rate that a factor is applied to."""

_LAYERS = (nn.Linear, nn.Conv2d, nn.RNNBase, nn.RNNCellBase)

_FEWEST = 8
"""Of outputs and inputs: a smaller matrix has few directions to make alike."""


def make_optimizers(
    model: nn.Module, config: OptimizerConfig, weights: Iterable[Tensor] | None = None
) -> tuple[Optimizer, ...]:
    """The optimizers of a model's weights, of those given or of all, each weight in one of them.

    Muon has the hidden matrices, if it is wanted: weights of linear, convolutional and recurrent layers that are no
    `End` and have 8 outputs and inputs or more. AdamW has the rest: what reads pixels or codes, what puts out
    parameters of distributions, gains, offsets, learned queries, places and beginnings. Names decide nothing.
    """
    taught = list(model.parameters() if weights is None else weights)
    hidden = {id(weight) for weight in _matrices(model)} if config.kind == "muon" else set()
    matrices = [weight for weight in taught if id(weight) in hidden]
    rest = [weight for weight in taught if id(weight) not in hidden]
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
    """Set every rate to a factor of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group[_PEAK] * factor


def _matrices(model: nn.Module) -> list[Tensor]:
    found: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, _LAYERS) and not isinstance(module, End):
            found += [weight for weight in module.parameters(recurse=False) if _has_directions(weight)]
    return found


def _has_directions(weight: Tensor) -> bool:
    return weight.ndim >= 2 and min(weight.shape[:2]) >= _FEWEST
