"""The benchmark as a whole: every level trained on, probed, cloned and played, then compared."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from aime.agents.experience import OnProgress
from aime.benchmarking.dmc_vb.measurements import Finished, follow
from aime.benchmarking.dmc_vb.picture import draw
from aime.benchmarking.dmc_vb.plan import Plan
from aime.benchmarking.dmc_vb.results import Benchmark, compare
from aime.benchmarking.dmc_vb.table import to_markdown
from aime.benchmarking.isolated import train_isolated
from aime.primitives.files import write_atomically
from aime.primitives.hardware import keep_freed_memory
from aime.training.run_directory import is_complete

NAME = "benchmark"
"""Of the files that are written, less their endings."""


def run_benchmark(
    plan: Plan, tell: Callable[[str], None], watched: Callable[[], AbstractContextManager[OnProgress]]
) -> Benchmark:
    """Do what a plan says, and write benchmark.json, benchmark.md and benchmark.png to its directory.

    A training that is there is gone on with, and nothing is done again that was finished with the same settings.

    Args:
        plan: checked.
        tell: told, in a line, what is being done.
        watched: shows progress while its context lasts; trainings show their own.

    Raises:
        AimeError: if a training fails, or a file is damaged or cannot be written.
        KeyboardInterrupt: after an interruption; what is finished is kept.
    """
    keep_freed_memory()
    finished: list[Finished] = []
    trainings = list(plan.trainings())
    for number, training in enumerate(trainings, start=1):
        place = f"{training.place} ({number} of {len(trainings)})"
        if not is_complete(training.config):
            tell(f"{place}: training")
            train_isolated(training.config)
        tell(f"{place}: probing, cloning, playing")
        with watched() as on_progress:
            finished.append(follow(plan, training, on_progress))
    benchmark = compare(plan, finished)
    out = plan.training.out
    write_atomically(out / f"{NAME}.json", benchmark.to_json().encode())
    write_atomically(out / f"{NAME}.png", draw(benchmark))
    write_atomically(out / f"{NAME}.md", to_markdown(benchmark).encode())
    return benchmark
