"""Runs the benchmark: trains on every level, measures, and writes the results."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from aime.agents.experience import OnProgress
from aime.benchmarking.dmc_vb.measurements import Measurements, measure
from aime.benchmarking.dmc_vb.picture import draw
from aime.benchmarking.dmc_vb.plan import Plan
from aime.benchmarking.dmc_vb.results import Benchmark, compare
from aime.benchmarking.dmc_vb.table import to_markdown
from aime.benchmarking.isolated import train_isolated
from aime.primitives.files import write_atomically
from aime.primitives.hardware import keep_freed_memory
from aime.training.run_directory import is_complete

NAME = "benchmark"
"""Name of the result files, without suffix."""


def run_benchmark(
    plan: Plan, report: Callable[[str], None], show_progress: Callable[[], AbstractContextManager[OnProgress]]
) -> Benchmark:
    """Run a plan, and write benchmark.json, benchmark.md and benchmark.png to its directory.

    Interrupted trainings are continued; steps that are complete with the same settings are kept.

    Args:
        plan: from `make_plan`.
        report: takes a line about the progress.
        show_progress: context of a progress display; trainings have their own.

    Raises:
        AimeError: if a training fails, or a file is damaged or cannot be written.
        KeyboardInterrupt: after an interruption; complete steps are kept.
    """
    keep_freed_memory()
    finished: list[Measurements] = []
    trainings = list(plan.trainings())
    for number, training in enumerate(trainings, start=1):
        title = f"{training.title} ({number} of {len(trainings)})"
        if not is_complete(training.config):
            report(f"{title}: training")
            train_isolated(training.config)
        report(f"{title}: probing, cloning, playing")
        with show_progress() as on_progress:
            finished.append(measure(plan, training, on_progress))
    benchmark = compare(plan, finished)
    out = plan.training.out
    write_atomically(out / f"{NAME}.json", benchmark.to_json().encode())
    write_atomically(out / f"{NAME}.png", draw(benchmark))
    write_atomically(out / f"{NAME}.md", to_markdown(benchmark).encode())
    return benchmark
