"""Training the variants of an ablation one after another, and evaluating each on held-out episodes."""

from __future__ import annotations

import json
import math
import multiprocessing
import resource
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from aime.errors import AimeError
from aime.inference.evaluate import evaluate_run
from aime.inference.evaluation import Evaluation
from aime.inference.loading import check_lengths
from aime.primitives.files import write_atomically
from aime.primitives.plain import to_plain
from aime.training.ablation.results import Ablation, Row, make_row
from aime.training.ablation.variants import VARIANTS, choose
from aime.training.checkpoint import read_progress
from aime.training.config import TrainConfig
from aime.training.run_directory import read_config
from aime.training.schedule import Budget
from aime.world_model.saved import CONFIG, checkpoint_directory

MEMORY = "peak_memory.json"
"""In a run directory: {"peak_memory_mb": number} of the process that ended its training."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How every variant is judged.

    Raises:
        AimeError: if a number is below 1.
    """

    context: int = 5
    """Frames that the model sees."""
    horizon: int = 45
    """Frames that it then predicts."""
    samples: int = 16
    """Sampled futures of each clip."""
    clips: int | None = None
    """At most so many clips; by default 64, the first of every episode before the second of any."""

    def __post_init__(self) -> None:
        check_lengths(self.context, self.horizon)
        for name in ("samples", "clips"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise AimeError(f"{name} is {value}; expected 1 or more: leave it out for the usual number")


Tell = Callable[[str], None]
"""Told, in a line, what is being done."""


def run_ablation(
    config: TrainConfig, variants: tuple[str, ...], evaluation: EvaluationConfig, tell: Tell = print
) -> Ablation:
    """Train each variant in `config.out`/VARIANT in a process of its own, evaluate it, and write the comparison.

    Writes ablation.md and ablation.json to `config.out`. A run that is there already is gone on with, and one that is
    complete is not trained again.

    Args:
        config: the complete model's run; `out` is the directory of all runs, `resume` is not read.
        variants: names of `VARIANTS`.
        evaluation: how they are judged.
        tell: told which variant is being trained or evaluated.

    Raises:
        AimeError: if a name is unknown, a run that is there was made with other settings, the training of a variant
            fails, or no held-out episode is long enough.
        KeyboardInterrupt: after an interruption; the run is saved.
    """
    rows: list[Row] = []
    last: Evaluation | None = None
    names = choose(variants)
    runs = {name: _variant_config(config, name) for name in names}
    for run in runs.values():
        _refuse_other_settings(run)
    for number, (name, run) in enumerate(runs.items(), start=1):
        place = f"{name} ({number} of {len(names)})"
        if not _is_complete(run):
            tell(f"{place}: training")
            _train_apart(run)
        tell(f"{place}: evaluating")
        last = evaluate_run(
            run.out,
            None,
            evaluation.context,
            evaluation.horizon,
            evaluation.samples,
            evaluation.clips,
            config.device,
            run.out / "evaluation.json",
        )
        progress = read_progress(run.out)
        rows.append(make_row(name, last, progress.step, progress.seconds / 60, _peak_memory(run.out)))
    assert last is not None
    ablation = Ablation(config.data, last.split, last.clips, last.context, last.samples, config.seed, tuple(rows))
    write_atomically(config.out / "ablation.json", ablation.to_json().encode())
    write_atomically(config.out / "ablation.md", ablation.to_markdown().encode())
    return ablation


def _variant_config(config: TrainConfig, name: str) -> TrainConfig:
    plain = TrainConfig(**{field.name: getattr(config, field.name) for field in fields(TrainConfig)})
    return VARIANTS[name].switch(replace(plain, out=config.out / name, resume=False))


def _refuse_other_settings(run: TrainConfig) -> None:
    """Variants are comparable only if all but the switch is the same.

    Raises:
        AimeError: if the run that is there was made with other settings.
    """
    if not (run.out / CONFIG).is_file():
        return
    found = _flat(to_plain(replace(read_config(run.out), out=run.out, resume=False)))
    for name, wanted in _flat(to_plain(run)).items():
        if found[name] != wanted:
            raise AimeError(
                f"{run.out}: {name} is {found[name]} there; expected {wanted}: take another --out, or the flags that "
                "the ablation there was started with"
            )


def _is_complete(run: TrainConfig) -> bool:
    if not _has_checkpoint(run.out):
        return False
    progress = read_progress(run.out)
    return Budget(run.steps, run.minutes).share(progress.step, progress.seconds) >= 1


def _has_checkpoint(run: Path) -> bool:
    try:
        checkpoint_directory(run)
    except AimeError:
        return False
    return True


def _train_apart(run: TrainConfig) -> None:
    """Train in a fresh process, so that no variant inherits another's memory, threads or random numbers.

    Raises:
        AimeError: if the training fails or its process is ended.
        KeyboardInterrupt: if the training was interrupted.
    """
    resume = _has_checkpoint(run.out)
    if not resume and (run.out / CONFIG).is_file():
        # killed before its first checkpoint: there is nothing to go on from, and training refuses what is not empty
        shutil.rmtree(run.out)
    # a fork would take over this process's threads and GPU
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        try:
            interrupted = pool.submit(_train, replace(run, resume=resume)).result()
        except BrokenProcessPool as error:
            raise AimeError(
                f"{run.out}: the process that trained it was ended, perhaps for want of memory; run the command again "
                "to go on, or take a smaller --batch"
            ) from error
    if interrupted:
        raise KeyboardInterrupt


def _train(run: TrainConfig) -> bool:
    from aime.training.trainer import train

    interrupted = train(run).interrupted
    on_gpu = torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    write_atomically(run.out / MEMORY, json.dumps({"peak_memory_mb": peak / 2**20}).encode())
    return interrupted


def _peak_memory(run: Path) -> float:
    """In MiB; NaN where the process ended before it could be written."""
    try:
        return float(json.loads((run / MEMORY).read_text(encoding="utf-8"))["peak_memory_mb"])
    except (OSError, ValueError, KeyError, TypeError):
        return math.nan


def _flat(plain: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(plain, dict):
        return {prefix.removesuffix("."): plain}
    return {name: value for key, each in plain.items() for name, value in _flat(each, f"{prefix}{key}.").items()}
