"""A module's work on a GPU: recorded once for each function, setting and shape, then replayed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from aime.primitives.cuda_graphs import GraphedWork

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
    places: list[int]
    """Where the module's weights were."""
    work: GraphedWork[_Kind, Any, Any]


_OF_MODULES: WeakKeyDictionary[nn.Module, _Recorded] = WeakKeyDictionary()

_MOST_KINDS = 16
"""Kinds and shapes of a module, after which all are forgotten: each keeps memory on the GPU."""


def replayed(
    work: Callable[[Module, Inputs, Setting], Result], module: Module, inputs: Inputs, setting: Setting
) -> Result:
    """What `work(module, inputs, setting)` gives: on a GPU, in eval mode and without gradients, from a recording.

    It is recorded at the fourth call of a kind and replayed from then on; `GraphedWork` says what it must not do. Work
    and setting are told apart by equality, so functions are those of a file: one made again for each call would never
    be replayed. The result is in memory of its own.
    """
    device = next(module.parameters()).device
    if device.type != "cuda" or module.training or torch.is_grad_enabled():
        return work(module, inputs, setting)
    places = [weight.data_ptr() for weight in module.parameters()]
    found = _OF_MODULES.get(module)
    if found is None or found.places != places or len(found.work) > _MOST_KINDS:
        found = _OF_MODULES[module] = _Recorded(places, _recordings(module, device))
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
    kind = _Kind(work, setting, dtype, torch.is_inference_mode_enabled())
    return tree_map_only(Tensor, torch.clone, found.work(kind, inputs))


def _recordings(module: nn.Module, device: torch.device) -> GraphedWork[_Kind, Any, Any]:
    alive = weakref.ref(module)  # or the module would live as long as its recordings, which live as long as the module

    def work(kind: _Kind, inputs: Any) -> Any:
        module = alive()
        assert module is not None, "who calls has the module"
        return kind.work(module, inputs, kind.setting)

    return GraphedWork(work, device)
