"""The process group of a training that torchrun started, and how all of its processes end."""

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
from aime.primitives.ranks import rank, ranks, true_on_any_rank
from aime.primitives.signals import handled
from aime.runs.heartbeat import Heartbeat

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

_SECONDS_TO_BE_HEARD = 10.0
_EXIT_QUIETLY = 2

_LONGEST_WAIT = timedelta(hours=6)
"""Of a collective for the slowest rank; the first may read all data, or save, while the others wait."""


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun started together; leave them at the end, after the last of them is done.

    GPU tensors go by NCCL and CPU tensors by gloo, so that ranks can agree on something without waiting for a GPU.
    Does nothing in a process that was started by itself, or is in a group already.

    Where an error ends several ranks, the first raises it. The others, whose errors are the same or follow from the
    first, exit without a word, with status 2. Where a rank is killed or frozen, the others end within half a minute.

    Raises:
        AimeError: if the environment is not that of torchrun, or another rank is gone.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1" or ranks() > 1:
        yield
        return
    from torch.distributed.rendezvous import rendezvous  # some builds of torch have none

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
        true_on_any_rank(False)
    except Exception as error:
        if _first_to_fail(store):
            with handled() as interruption:
                # torchrun sends SIGTERM to whoever is left, and would cut the explanation short
                interruption.held = True
                lost = heartbeat.explain_loss() if _is_of_collectives(error) else None
            if lost is not None:
                raise AimeError(lost) from error
            raise
        # torchrun ends all processes as soon as one has ended: not before the first has spoken
        time.sleep(_SECONDS_TO_BE_HEARD)
        raise SystemExit(_EXIT_QUIETLY) from None
    finally:
        heartbeat.stop()
        distributed.destroy_process_group()


def join(backend: str, store: Store, number: int, size: int) -> None:
    """Join the group of ``size`` processes that meet at ``store``, as number ``number`` in [0, size).

    The same as ``init_process_group``, but leaving the group then ends its threads.
    """
    # Its functions take the group that exists while it is imported (by the first optimizer) as a default argument.
    # A group so kept outlives destroy_process_group, and gloo's threads now and then abort the interpreter's exit.
    import torch.distributed.nn.functional  # noqa: F401

    distributed.init_process_group(backend, store=store, rank=number, world_size=size, timeout=_LONGEST_WAIT)


def seed_noise(seed: int, step: int) -> None:
    """Give every rank but the first random numbers of its own, from (seed, rank, step); the first keeps its own."""
    if ranks() > 1 and rank() > 0:
        state = np.random.SeedSequence([seed, rank(), step]).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0]))


def _is_of_collectives(error: Exception) -> bool:
    """Whether it is what gloo or NCCL raise when a peer goes away."""
    return isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in ("gloo", "nccl", "connection"))
    )


def _first_to_fail(store: Store) -> bool:
    try:
        return store.add("aime/failures", 1) == 1
    except distributed.DistError:  # whoever kept the store is gone
        return False
