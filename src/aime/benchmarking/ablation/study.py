"""Runs an ablation: trains the variants one after another and evaluates each on the validation part."""

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

Report = Callable[[str], None]
"""Takes a line about the progress."""


def run_ablation(
    config: TrainConfig, variants: tuple[str, ...], request: EvaluationRequest, report: Report = print
) -> Ablation:
    """Train each variant in `config.out`/VARIANT in a separate process, evaluate it, and write the comparison.

    Writes ablation.md and ablation.json to `config.out`. An interrupted run is continued, a complete one is kept.

    Args:
        config: of the complete model; `out` is the directory of all runs, `resume` is ignored.
        variants: names of `VARIANTS`.
        request: of the evaluation on the validation part of the run's data.
        report: takes a line per variant that is trained or evaluated.

    Raises:
        AimeError: if a name is unknown, an existing run has other settings, a training fails, or no episode of the
            validation part is long enough.
        KeyboardInterrupt: after an interruption; the run is saved.
    """
    found: dict[str, tuple[ScoredRun, Trained]] = {}
    names = expect_some_of(variants, VARIANTS, "variant")
    runs = {name: _variant_config(config, name) for name in names}
    for run in runs.values():
        refuse_other_settings(run)
    open_dataset(config.data, "validation", config.held_out)  # fail before the first training if it is empty
    own = replace(request, data=None, part="validation", device=config.device)
    for number, (name, run) in enumerate(runs.items(), start=1):
        place = f"{name} ({number} of {len(names)})"
        if not is_complete(run):
            report(f"{place}: training")
            train_isolated(run)
        report(f"{place}: evaluating")
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
