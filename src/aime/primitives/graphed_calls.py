"""Calls of a module's functions as CUDA graphs, one graph per function, setting and shape."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from aime.primitives.cuda_graphs import GraphedFunction

Module = TypeVar("Module", bound=nn.Module)
Inputs = TypeVar("Inputs")
Setting = TypeVar("Setting", bound=Hashable)
Result = TypeVar("Result")


class _Kind(NamedTuple):
    work: Callable[..., Any]
    setting: Hashable
    autocast: torch.dtype | None
    inference: bool


class _Recorded(NamedTuple):
    addresses: list[int]
    """Addresses of the module's weights at capture."""
    work: GraphedFunction[_Kind, Any, Any]


_OF_MODULES: WeakKeyDictionary[nn.Module, _Recorded] = WeakKeyDictionary()

_MOST_KINDS = 16
"""A module's graphs are dropped beyond this number: each holds GPU memory."""


def call_graphed(
    work: Callable[[Module, Inputs, Setting], Result], module: Module, inputs: Inputs, setting: Setting
) -> Result:
    """Call `work(module, inputs, setting)`; on a GPU, in eval mode and without gradients, as a CUDA graph.

    See `GraphedFunction` for the requirements on `work`. Work and setting are compared by equality, so `work` must be a
    module-level function. The returned tensors are copies.
    """
    device = next(module.parameters()).device
    if device.type != "cuda" or module.training or torch.is_grad_enabled():
        return work(module, inputs, setting)
    addresses = [weight.data_ptr() for weight in module.parameters()]
    found = _OF_MODULES.get(module)
    if found is None or found.addresses != addresses or len(found.work) > _MOST_KINDS:
        found = _OF_MODULES[module] = _Recorded(addresses, _recordings(module, device))
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
    kind = _Kind(work, setting, dtype, torch.is_inference_mode_enabled())
    return tree_map_only(Tensor, torch.clone, found.work(kind, inputs))


def _recordings(module: nn.Module, device: torch.device) -> GraphedFunction[_Kind, Any, Any]:
    alive = weakref.ref(module)  # weak, since the module's entry in _OF_MODULES must not keep it alive

    def work(kind: _Kind, inputs: Any) -> Any:
        module = alive()
        assert module is not None, "the caller holds the module"
        return kind.work(module, inputs, kind.setting)

    return GraphedFunction(work, device)
