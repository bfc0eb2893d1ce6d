"""The state of optimizers as tensors by parameter name, for checkpoints."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from aime.errors import AimeError
from aime.optimization.muon import Muon


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
