"""Training the variants of an ablation one after another, and evaluating each on the validation part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from aime.benchmarking.ablation.results import Ablation, Row, Trained, make_row
from aime.benchmarking.ablation.variants import COMPLETE, VARIANTS
from aime.benchmarking.isolated import peak_memory, plain_config, refuse_other_settings, train_isolated
from aime.data import open_dataset
from aime.errors import expect_some_of
from aime.inference.evaluate import ScoredRun, score_run
from aime.inference.request import EvaluationRequest
from aime.primitives.files import write_atomically
from aime.runs.checkpoint_files import read_progress
from aime.training.config import TrainConfig
from aime.training.run_directory import is_complete

Tell = Callable[[str], None]
"""Told, in a line, what is being done."""


def run_ablation(
    config: TrainConfig, variants: tuple[str, ...], request: EvaluationRequest, tell: Tell = print
) -> Ablation:
    """Train each variant in `config.out`/VARIANT in a process of its own, evaluate it, and write the comparison.

    Writes ablation.md and ablation.json to `config.out`. A run that is there already is gone on with, and one that is
    complete is not trained again.

    Args:
        config: the complete model's run; `out` is the directory of all runs, `resume` is not read.
        variants: names of `VARIANTS`.
        request: how they are judged, on the validation part of the run's own data.
        tell: told which variant is being trained or evaluated.

    Raises:
        AimeError: if a name is unknown, a run that is there was made with other settings, the training of a variant
            fails, or no episode of the validation part is long enough.
        KeyboardInterrupt: after an interruption; the run is saved.
    """
    found: dict[str, tuple[ScoredRun, Trained]] = {}
    names = expect_some_of(variants, VARIANTS, "variant")
    runs = {name: _variant_config(config, name) for name in names}
    for run in runs.values():
        refuse_other_settings(run)
    open_dataset(config.data, "validation", config.held_out)  # refused now if it has none, not after the first training
    own = replace(request, data=None, part="validation", device=config.device)
    for number, (name, run) in enumerate(runs.items(), start=1):
        place = f"{name} ({number} of {len(names)})"
        if not is_complete(run):
            tell(f"{place}: training")
            train_isolated(run)
        tell(f"{place}: evaluating")
        judged = score_run(run.out, own, run.out / "evaluation.json")
        progress = read_progress(run.out)
        found[name] = judged, Trained(progress.step, progress.seconds / 60, peak_memory(run.out))
    ablation = _compared(config, found)
    write_atomically(config.out / "ablation.json", ablation.to_json().encode())
    write_atomically(config.out / "ablation.md", ablation.to_markdown().encode())
    return ablation


def _compared(config: TrainConfig, found: dict[str, tuple[ScoredRun, Trained]]) -> Ablation:
    complete = found[COMPLETE][0] if COMPLETE in found else None
    rows: list[Row] = []
    for name, (judged, trained) in found.items():
        rows.append(make_row(name, judged, trained, None if name == COMPLETE else complete))
    last = judged.evaluation
    shown = last.unseen, last.episodes, last.clips, last.context, last.samples
    return Ablation(config.data, *shown, config.seed, tuple(rows))


def _variant_config(config: TrainConfig, name: str) -> TrainConfig:
    return VARIANTS[name].switch(replace(plain_config(config), out=config.out / name, resume=False))
