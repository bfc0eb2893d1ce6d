"""A model's work on a GPU: recorded once for each function, setting and shape, then replayed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from aime.primitives.cuda_graphs import GraphedWork

if TYPE_CHECKING:
    from aime.world_model.model import AIME

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
    """Where the model's weights were."""
    work: GraphedWork[_Kind, Any, Any]


_OF_MODELS: WeakKeyDictionary[AIME, _Recorded] = WeakKeyDictionary()

_MOST_KINDS = 16
"""Kinds and shapes of a model, after which all are forgotten: each keeps memory on the GPU."""


def replayed(work: Callable[[AIME, Inputs, Setting], Result], model: AIME, inputs: Inputs, setting: Setting) -> Result:
    """What `work(model, inputs, setting)` gives: on a GPU, in eval mode and without gradients, from a recording.

    It is recorded at the fourth call of a kind and replayed from then on; `GraphedWork` says what it must not do. Work
    and setting are told apart by equality, so functions are those of a module: one made again for each call would never
    be replayed. The result is in memory of its own.
    """
    if model.device.type != "cuda" or model.training or torch.is_grad_enabled():
        return work(model, inputs, setting)
    places = [weight.data_ptr() for weight in model.parameters()]
    found = _OF_MODELS.get(model)
    if found is None or found.places != places or len(found.work) > _MOST_KINDS:
        found = _OF_MODELS[model] = _Recorded(places, _recordings(model))
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
    kind = _Kind(work, setting, dtype, torch.is_inference_mode_enabled())
    return tree_map_only(Tensor, torch.clone, found.work(kind, inputs))


def _recordings(model: AIME) -> GraphedWork[_Kind, Any, Any]:
    alive = weakref.ref(model)  # or the model would live as long as its recordings, which live as long as the model

    def work(kind: _Kind, inputs: Any) -> Any:
        model = alive()
        assert model is not None, "who calls has the model"
        return kind.work(model, inputs, kind.setting)

    return GraphedWork(work, model.device)
