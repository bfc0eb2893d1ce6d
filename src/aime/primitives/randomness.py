"""The states of random generators: kept, set, and left as they were after a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor


class RandomStates(NamedTuple):
    """Of the generators of the CPU and of every GPU in use."""

    cpu: UInt8[Tensor, " N"]
    gpus: tuple[UInt8[Tensor, " M"], ...]


def random_states() -> RandomStates:
    """The present states."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return RandomStates(torch.get_rng_state(), tuple(gpus))


def set_random_states(states: RandomStates) -> None:
    """Go on from states; those of GPUs only where there are as many: a run may go on on another machine.

    Raises:
        RuntimeError: if they are no states of this torch's generators.
    """
    torch.set_rng_state(states.cpu)
    if torch.cuda.is_initialized() and len(states.gpus) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(list(states.gpus))


@contextmanager
def preserved_random_state(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """What is drawn within, on the CPU or `device`, changes nothing for what is drawn after; it starts at `seed`."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if seed is not None:
            torch.manual_seed(seed)
        yield
