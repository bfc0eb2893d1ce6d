"""Optimizers: assignment of parameters, learning rates, and optimizer state by parameter name."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from aime.errors import AimeError, expect_at_least_zero
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


def optimizer_tensors(model: nn.Module, optimizers: Iterable[Optimizer]) -> dict[str, Tensor]:
    """The optimizers' tensors as PARAMETER.KEY; parameters that never had a gradient have none."""
    tensors = {}
    for (name, parameter), optimizer in itertools.product(model.named_parameters(), optimizers):
        for key, value in optimizer.state.get(parameter, {}).items():
            assert isinstance(value, Tensor), f"{name}.{key} is a {type(value).__name__}, not a tensor"
            tensors[f"{name}.{key}"] = value
    return tensors


def fill_optimizer(model: nn.Module, optimizer: Optimizer, tensors: dict[str, Tensor], path: Path) -> None:
    """Load an optimizer's state; tensors of another kind of optimizer are ignored.

    Raises:
        AimeError: if a tensor belongs to no parameter of the model or has the wrong shape.
    """
    parameters = dict(model.named_parameters())
    states: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        owner, _, key = name.rpartition(".")
        if owner not in parameters:
            raise AimeError(f"{path}: '{name}': the model has no parameter '{owner}'; expected the run's own optimizer")
        states.setdefault(owner, {})[key] = _like(parameters[owner], tensor, name, path)
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    index = {id(parameter): number for number, parameter in enumerate(order)}
    by_number = {
        index[id(parameters[owner])]: state
        for owner, state in states.items()
        if id(parameters[owner]) in index and ("momentum" in state) == isinstance(optimizer, Muon)
    }
    # load_state_dict also sets the groups' settings: pass the current ones to keep them
    optimizer.load_state_dict({"state": by_number, "param_groups": optimizer.state_dict()["param_groups"]})


def _like(parameter: Tensor, tensor: Tensor, name: str, path: Path) -> Tensor:
    """The tensor in its parameter's memory format, as the optimizer creates it; scalars unchanged."""
    if tensor.ndim == 0:
        return tensor
    if tensor.shape != parameter.shape:
        found, expected = list(tensor.shape), list(parameter.shape)
        raise AimeError(f"{path}: '{name}': found shape {found}, expected {expected}; resume with the run's config")
    return torch.empty_like(parameter, dtype=tensor.dtype, device="cpu", requires_grad=False).copy_(tensor)


def _matrices(model: nn.Module) -> list[Tensor]:
    found: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, _LAYERS) and not isinstance(module, BoundaryLayer):
            found += [weight for weight in module.parameters(recurse=False) if _is_large_matrix(weight)]
    return found


def _is_large_matrix(weight: Tensor) -> bool:
    return weight.ndim >= 2 and min(weight.shape[:2]) >= _MIN_MUON_SIZE
