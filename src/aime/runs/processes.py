"""The process group of a training under torchrun, from start to exit of all processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import distributed

from aime.errors import AimeError
from aime.primitives.ranks import any_rank, rank, ranks
from aime.primitives.signals import handled
from aime.runs.heartbeat import Heartbeat

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

_SECONDS_FOR_FIRST_MESSAGE = 10.0
_EXIT_QUIETLY = 2

_LONGEST_WAIT = timedelta(hours=6)
"""Timeout of a collective: the other ranks wait while the first reads all data or saves."""


@contextmanager
def process_group() -> Iterator[None]:
    """Join the process group that torchrun defines; leave it after the last rank has finished.

    GPU tensors use NCCL and CPU tensors gloo, so that ranks can exchange flags without waiting for a GPU. Does nothing
    without torchrun or inside an existing group.

    If errors end several ranks, the first one raises; the others exit silently with status 2. If a rank is killed or
    frozen, the others exit within half a minute.

    Raises:
        AimeError: if the environment is not that of torchrun, or another rank is lost.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1" or ranks() > 1:
        yield
        return
    from torch.distributed.rendezvous import rendezvous  # missing in some builds of torch

    try:
        store, number, size = next(rendezvous("env://"))
    except ValueError as error:
        raise AimeError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {error}; expected the environment that torchrun makes: "
            "start with torchrun, or unset WORLD_SIZE"
        ) from error
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    join(backend, store, number, size)
    heartbeat = Heartbeat(store.clone(), number, size)
    heartbeat.start()
    try:
        yield
        any_rank(False)
    except Exception as error:
        if _first_to_fail(store):
            with handled() as interruption:
                # torchrun sends SIGTERM to the remaining ranks, which would interrupt the explanation
                interruption.held = True
                lost = heartbeat.explain_loss() if _is_of_collectives(error) else None
            if lost is not None:
                raise AimeError(lost) from error
            raise
        # torchrun kills all processes when one exits: let the first print its error
        time.sleep(_SECONDS_FOR_FIRST_MESSAGE)
        raise SystemExit(_EXIT_QUIETLY) from None
    finally:
        heartbeat.stop()
        distributed.destroy_process_group()


def join(backend: str, store: Store, number: int, size: int) -> None:
    """Join the group of `size` processes at `store` as rank `number` in [0, size).

    Unlike `init_process_group` alone, this lets `destroy_process_group` end all threads of the group.
    """
    # This module keeps the group that exists at import time as a default argument. If the first optimizer imports it,
    # the group outlives destroy_process_group, and gloo's threads sometimes abort the interpreter's exit.
    import torch.distributed.nn.functional  # noqa: F401

    distributed.init_process_group(backend, store=store, rank=number, world_size=size, timeout=_LONGEST_WAIT)


def seed_noise(seed: int, step: int) -> None:
    """Seed every rank but the first from (seed, rank, step); the first keeps its random state."""
    if ranks() > 1 and rank() > 0:
        state = np.random.SeedSequence([seed, rank(), step]).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0]))


def _is_of_collectives(error: Exception) -> bool:
    """Whether gloo or NCCL raised the error because a peer is gone."""
    return isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in ("gloo", "nccl", "connection"))
    )


def _first_to_fail(store: Store) -> bool:
    try:
        return store.add("aime/failures", 1) == 1
    except distributed.DistError:  # the process that hosts the store is gone
        return False
