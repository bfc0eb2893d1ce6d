"""Random numbers of one's own, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def apart(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """What is drawn within, on the CPU or `device`, changes nothing for what is drawn after; it starts at `seed`."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if seed is not None:
            torch.manual_seed(seed)
        yield
