"""Rollouts on a GPU: recorded once for each model, way of choosing and shape, then replayed."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from aime.primitives.cuda_graphs import GraphedWork
from aime.world_model.outputs import Dream, DreamState

if TYPE_CHECKING:
    from aime.world_model.model import AIME

Choose = Callable[..., Any]
"""A function of a module: one that is made anew for each call would be recorded anew."""
Rollout = Callable[["AIME", DreamState, Tensor, Any], Dream]


class _Kind(NamedTuple):
    rollout: Rollout
    choose: Choose
    autocast: torch.dtype | None
    inference: bool


class _Recorded(NamedTuple):
    places: list[int]
    """Where the model's weights were."""
    work: GraphedWork[_Kind, tuple[DreamState, Tensor], Dream]


_OF_MODELS: WeakKeyDictionary[AIME, _Recorded] = WeakKeyDictionary()

_MOST_KINDS = 16
"""Kinds and shapes of a model, after which all are forgotten: each keeps memory on the GPU."""


def replayed(
    rollout: Rollout, model: AIME, start: DreamState, actions: Float[Tensor, "N F A"], choose: Choose
) -> Dream:
    """What `rollout(model, start, actions, choose)` gives, without gradients, on a GPU; see `GraphedWork`."""
    places = [weight.data_ptr() for weight in model.parameters()]
    found = _OF_MODELS.get(model)
    if found is None or found.places != places or len(found.work) > _MOST_KINDS:
        found = _OF_MODELS[model] = _Recorded(places, _rollouts(model))
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
    kind = _Kind(rollout, choose, dtype, torch.is_inference_mode_enabled())
    return found.work(kind, (start, actions)).copied()


def _rollouts(model: AIME) -> GraphedWork[_Kind, tuple[DreamState, Tensor], Dream]:
    alive = weakref.ref(model)  # or the model would live as long as its recordings, which live as long as the model

    def work(kind: _Kind, inputs: tuple[DreamState, Tensor]) -> Dream:
        model = alive()
        assert model is not None, "who calls has the model"
        return kind.rollout(model, *inputs, kind.choose)

    return GraphedWork(work, model.device)
