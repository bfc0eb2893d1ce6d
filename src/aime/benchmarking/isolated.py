"""Training in a process of its own, for those who train several runs: kept, gone on with, and never mixed up."""

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
"""In a run directory: {"peak_memory_mb": number} of the process that ended its training."""


def plain_config(config: TrainConfig) -> TrainConfig:
    """The fields of a run alone, of options that add others to them."""
    return TrainConfig(**{field.name: getattr(config, field.name) for field in fields(TrainConfig)})


def refuse_other_settings(run: TrainConfig) -> None:
    """Go on with a run only as it was begun: whatever is compared must differ in nothing else.

    Raises:
        AimeError: if the run that is there was made with other settings, or on other episodes.
    """
    if not (run.out / CONFIG).is_file():
        return
    found = flatten(to_plain(with_absolute_paths(replace(read_config(run.out), out=run.out, resume=False))))
    for name, wanted in flatten(to_plain(with_absolute_paths(run))).items():
        if found[name] != wanted:
            raise AimeError(
                f"{run.out}: {name} is {found[name]} there; expected {wanted}: take another --out, or the flags that "
                "the run there was started with"
            )
    _refuse_other_episodes(run)


def _refuse_other_episodes(run: TrainConfig) -> None:
    """The path of the data may be the same and its content not."""
    manifest = read_run(run.out).manifest
    if manifest is None:
        return
    known = frozenset().union(*(each.episodes for each in manifest.current))
    there = frozenset(open_dataset(run.data).digests)
    if known != there:
        raise AimeError(
            f"{run.data}: has {len(there - known)} new episodes and lacks {len(known - there)} of those that {run.out} "
            "was started with; expected the same data for all runs that are compared: restore it, or take another --out"
        )


def train_isolated(run: TrainConfig) -> None:
    """Train in a fresh process, so that no run inherits another's memory, threads or random numbers.

    A run that was interrupted is gone on with; one that never came to a checkpoint begins again.

    Raises:
        AimeError: if the training fails or its process is ended.
        KeyboardInterrupt: if the training was interrupted, once it has ended.
    """
    resume = (run.out / CONFIG).is_file()
    # a fork would take over this process's threads and GPU
    context = multiprocessing.get_context("spawn")
    with handled(), ProcessPoolExecutor(1, context, _end_with_parent) as pool:
        try:
            number = pool.submit(_train, replace(run, resume=resume)).result()
        except KeyboardInterrupt:
            for child in multiprocessing.active_children():  # which may be alone in not having heard of it
                child.terminate()
            raise
        except BrokenProcessPool as error:
            raise AimeError(
                f"{run.out}: the process that trained it was ended, perhaps for want of memory; run the command again "
                "to go on, or take a smaller --batch"
            ) from error
    if number is not None:
        raise Interrupted(number)


def _end_with_parent() -> None:
    """End as at a signal, with the run saved, when the process that wants it trained has been killed."""
    ending = partial(os.kill, os.getpid(), signal.SIGTERM)
    threading.Thread(target=when_parent_ends, args=(ending,), daemon=True).start()


def _train(run: TrainConfig) -> int | None:
    """Train, and give the number of the signal that interrupted it."""
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
    """Of the process that trained a run, in MiB; NaN where it ended before it could be written."""
    try:
        return float(json.loads((run / MEMORY).read_text(encoding="utf-8"))["peak_memory_mb"])
    except (OSError, ValueError, KeyError, TypeError):
        return math.nan
