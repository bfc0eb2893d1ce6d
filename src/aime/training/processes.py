"""The process group of a training that torchrun started, and how all of its processes end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import distributed

from aime.errors import AimeError
from aime.primitives.ranks import rank, ranks, true_on_any_rank

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

_SECONDS_TO_BE_HEARD = 10.0
_EXIT_QUIETLY = 2


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun started together; leave them at the end, after the last of them is done.

    GPU tensors go by NCCL and CPU tensors by gloo, so that ranks can agree on something without waiting for a GPU.
    Does nothing in a process that was started by itself, or is in a group already.

    Where an error ends several ranks, the first raises it. The others, whose errors are the same or follow from the
    first, exit without a word, with status 2.

    Raises:
        AimeError: if the environment is not that of torchrun.
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
    try:
        yield
        true_on_any_rank(False)
    except Exception:
        if _first_to_fail(store):
            raise
        # torchrun ends all processes as soon as one has ended: not before the first has spoken
        time.sleep(_SECONDS_TO_BE_HEARD)
        raise SystemExit(_EXIT_QUIETLY) from None
    finally:
        distributed.destroy_process_group()


def join(backend: str, store: Store, number: int, size: int) -> None:
    """Join the group of ``size`` processes that meet at ``store``, as number ``number`` in [0, size).

    The same as ``init_process_group``, but leaving the group then ends its threads.
    """
    # Its functions take the group that exists while it is imported (by the first optimizer) as a default argument.
    # A group so kept outlives destroy_process_group, and gloo's threads now and then abort the interpreter's exit.
    import torch.distributed.nn.functional  # noqa: F401

    distributed.init_process_group(backend, store=store, rank=number, world_size=size)


def seed_noise(seed: int, step: int) -> None:
    """Give every rank but the first random numbers of its own, from (seed, rank, step); the first keeps its own."""
    if ranks() > 1 and rank() > 0:
        state = np.random.SeedSequence([seed, rank(), step]).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0]))


def _first_to_fail(store: Store) -> bool:
    try:
        return store.add("aime/failures", 1) == 1
    except distributed.DistError:  # whoever kept the store is gone
        return False
