"""Work on a GPU recorded once and then replayed: one launch in place of thousands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

Kind = TypeVar("Kind", bound=Hashable)
Inputs = TypeVar("Inputs")
Result = TypeVar("Result")

WARM_UP = 3
"""Calls of a kind before it is recorded: the first ones choose algorithms and make what is kept from call to call."""


class _Recording(NamedTuple):
    graph: torch.cuda.CUDAGraph
    result: Any
    gradients: list[Tensor | None]


class GraphedWork(Generic[Kind, Inputs, Result]):
    """Calls a function of tensors as CUDA graphs: recorded at the fourth call of a kind, replayed from then on.

    A GPU runs a small model's kernels in 4 µs each and a Python program launches one in 20. The numbers are those of
    the function itself, random ones too. What a call returns, gradients included, holds until the next call.

    The function must read nothing back from the device, take its random numbers from the device's own generator, do
    the same at each call of a kind with tensors of the same shapes, and keep what it changes in the same memory. What
    it changes on the host it changes only when it is recorded.

    Reference: CUDA programming guide, "CUDA Graphs"; torch.cuda.graph.
    """

    def __init__(
        self, work: Callable[[Kind, Inputs], Result], device: torch.device, weights: Iterable[nn.Parameter] = ()
    ) -> None:
        """Nothing is recorded yet.

        Args:
            work: takes a kind and the inputs, tensors in tuples, lists or NamedTuples, on any device.
            device: a GPU, on which it gets them.
            weights: whose `.grad` it sets.
        """
        self._work, self._device, self._weights = work, device, list(weights)
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._inputs: dict[Hashable, Inputs] = {}
        self._calls: Counter[Hashable] = Counter()
        self._recordings: dict[Hashable, _Recording] = {}

    def __call__(self, kind: Kind, inputs: Inputs) -> Result:
        """What the function makes of the inputs."""
        present = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(present)
        with torch.cuda.stream(self._stream):
            call = kind, tuple((each.shape, each.dtype) for each in tree_leaves(inputs) if isinstance(each, Tensor))
            here = self._brought(call, inputs)
            self._calls[call] += 1
            result = self._work(kind, here) if self._calls[call] <= WARM_UP else self._replayed(call, kind, here)
        present.wait_stream(self._stream)
        return result

    def __len__(self) -> int:
        """How many kinds and shapes there have been."""
        return len(self._calls)

    def _brought(self, call: Hashable, inputs: Inputs) -> Inputs:
        """The inputs in the memory that the graph reads."""
        if call not in self._inputs:
            self._inputs[call] = tree_map_only(Tensor, self._room_for, inputs)
        kept = self._inputs[call]
        for mine, given in zip(tree_leaves(kept), tree_leaves(inputs), strict=True):
            if isinstance(given, Tensor):
                mine.copy_(given, non_blocking=True)
        return kept

    def _room_for(self, given: Tensor) -> Tensor:
        return torch.empty_like(given, device=self._device, requires_grad=False)

    def _replayed(self, call: Hashable, kind: Kind, here: Inputs) -> Result:
        if call not in self._recordings:
            graph = torch.cuda.CUDAGraph()
            # casts that an autocast around this call remembers will be gone when it is replayed
            casts = torch.autocast("cuda", enabled=torch.is_autocast_enabled("cuda"), cache_enabled=False)
            # other threads may go on to pin memory meanwhile
            record = torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local")
            with casts, record:
                result = self._work(kind, here)
            self._recordings[call] = _Recording(graph, result, [weight.grad for weight in self._weights])
        recording = self._recordings[call]
        for weight, gradient in zip(self._weights, recording.gradients, strict=True):
            weight.grad = gradient
        recording.graph.replay()
        return recording.result
