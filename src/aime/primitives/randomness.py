"""Saving and restoring the states of random generators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor


class RandomStates(NamedTuple):
    """States of the generators of the CPU and of every GPU in use."""

    cpu: UInt8[Tensor, " N"]
    gpus: tuple[UInt8[Tensor, " M"], ...]


def random_states() -> RandomStates:
    """The current states."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return RandomStates(torch.get_rng_state(), tuple(gpus))


def set_random_states(states: RandomStates) -> None:
    """Set the states; those of GPUs only if their number is the same, since a run may resume on another machine.

    Raises:
        RuntimeError: if this version of torch does not accept them.
    """
    torch.set_rng_state(states.cpu)
    if torch.cuda.is_initialized() and len(states.gpus) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(list(states.gpus))


@contextmanager
def preserved_random_state(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Restore the random states of the CPU and `device` at the end; start from `seed`, if given."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if seed is not None:
            torch.manual_seed(seed)
        yield
