"""The price of a gradient balancer: time and memory of the whole training step, as ratios to the plain sum.

    python benchmarks/balancers.py --preset tiny

The processes take turns, two steps each, and the ratio of time is the median over the rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from measuring import Make, machine_of, parser_with_machine, race, show
from steps import STEPS, aime_config, aime_learning, aime_steps

from aime.benchmarking.ablation.variants import COMPLETE
from aime.primitives.hardware import Hardware


def balanced_step(preset: str, balancer: str, batch: int, length: int, hardware: Hardware) -> Callable[[], object]:
    """`STEPS` whole steps of the complete model."""
    config = replace(aime_config(preset, COMPLETE, batch, length), balancer=balancer)
    return aime_steps(aime_learning(config, hardware), batch, length)


def main() -> None:
    """Measure and print."""
    parser = parser_with_machine(__doc__)
    parser.add_argument("--batch", type=int, default=4, help="clips in a batch")
    parser.add_argument("--length", type=int, default=32, help="frames in a clip")
    parser.add_argument("--rounds", type=int, default=7, help="alternating rounds, after those of warm-up")
    parser.add_argument("--balancers", nargs="+", default=["rgb"], help="what to hold against the sum")
    options = parser.parse_args()
    machine = machine_of(options)
    steps: dict[str, Make] = {
        name: partial(balanced_step, options.preset, name, options.batch, options.length)
        for name in ("sum", *options.balancers)
    }
    found = race(steps, options.rounds, machine)
    figures = machine.describe() | {"preset": options.preset, "batch": options.batch, "length": options.length}
    for name in steps:
        figures |= {
            f"{name}_seconds": round(found.seconds(name) / STEPS, 4),
            f"{name}_peak_mb": round(found.peak_mb[name]),
        }
    for name in options.balancers:
        figures[f"{name}_time_over_sum"] = round(found.ratio(name, "sum"), 3)
        figures[f"{name}_memory_over_sum"] = round(found.peak_mb[name] / found.peak_mb["sum"], 3)
    show(figures)


if __name__ == "__main__":
    main()
