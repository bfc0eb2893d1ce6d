"""Training in a separate process, for commands that train several runs."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import resource
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import torch

from aime.data import open_dataset
from aime.data.pool import when_parent_ends
from aime.errors import AimeError
from aime.primitives.config_io import flatten, to_plain
from aime.primitives.files import write_atomically
from aime.primitives.signals import Interrupted, handled
from aime.training.config import TrainConfig
from aime.training.run_data import with_absolute_paths
from aime.training.run_directory import read_config
from aime.world_model.saved import CONFIG, read_run

MEMORY = "peak_memory.json"
"""File in a run directory: {"peak_memory_mb": number} of the process that completed the training."""


def plain_config(config: TrainConfig) -> TrainConfig:
    """The fields of `TrainConfig`, without those that a subclass adds."""
    return TrainConfig(**{field.name: getattr(config, field.name) for field in fields(TrainConfig)})


def refuse_other_settings(run: TrainConfig) -> None:
    """Check that a run that exists already has the same settings and data.

    Raises:
        AimeError: if it has other settings, or other episodes.
    """
    if not (run.out / CONFIG).is_file():
        return
    found = flatten(to_plain(with_absolute_paths(replace(read_config(run.out), out=run.out, resume=False))))
    for name, wanted in flatten(to_plain(with_absolute_paths(run))).items():
        if found[name] != wanted:
            raise AimeError(
                f"{run.out}: {name} is {found[name]} in the run that exists; expected {wanted}: use another --out, or "
                "the flags of that run"
            )
    _refuse_other_episodes(run)


def _refuse_other_episodes(run: TrainConfig) -> None:
    """Compare the content of the data, which may have changed at the same path."""
    manifest = read_run(run.out).manifest
    if manifest is None:
        return
    known = frozenset().union(*(each.episodes for each in manifest.current))
    there = frozenset(open_dataset(run.data).digests)
    if known != there:
        raise AimeError(
            f"{run.data}: has {len(there - known)} new episodes and lacks {len(known - there)} of those of {run.out}; "
            "expected the same data for all runs that are compared: restore it, or use another --out"
        )


def train_isolated(run: TrainConfig) -> None:
    """Train in a new process, so that runs share no memory, threads or random number generators.

    An interrupted run is continued, or started from the beginning if it has no checkpoint.

    Raises:
        AimeError: if the training fails or its process is killed.
        KeyboardInterrupt: if the training was interrupted, after it has ended.
    """
    resume = (run.out / CONFIG).is_file()
    # a fork would take over this process's threads and GPU
    context = multiprocessing.get_context("spawn")
    with handled(), ProcessPoolExecutor(1, context, _end_with_parent) as pool:
        try:
            number = pool.submit(_train, replace(run, resume=resume)).result()
        except KeyboardInterrupt:
            for child in multiprocessing.active_children():  # the signal may have reached this process only
                child.terminate()
            raise
        except BrokenProcessPool as error:
            raise AimeError(
                f"{run.out}: the training process was killed, possibly because of too little memory; run the command "
                "again to continue, or use a smaller --batch"
            ) from error
    if number is not None:
        raise Interrupted(number)


def _end_with_parent() -> None:
    """Save the run and end, as after SIGTERM, if the parent process is killed."""
    ending = partial(os.kill, os.getpid(), signal.SIGTERM)
    threading.Thread(target=when_parent_ends, args=(ending,), daemon=True).start()


def _train(run: TrainConfig) -> int | None:
    """Train; the number of the signal that interrupted it, or None."""
    from aime.training.trainer import train

    try:
        number = train(run).signal
    except Interrupted as error:
        return error.number
    on_gpu = torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    write_atomically(run.out / MEMORY, json.dumps({"peak_memory_mb": peak / 2**20}).encode())
    return number


def peak_memory(run: Path) -> float:
    """Peak memory of the process that trained a run, in MiB; NaN if unknown."""
    try:
        return float(json.loads((run / MEMORY).read_text(encoding="utf-8"))["peak_memory_mb"])
    except (OSError, ValueError, KeyError, TypeError):
        return math.nan
