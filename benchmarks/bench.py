"""All comparisons in one command: one JSON, one table, pictures.

    make bench                        # speed, costs, loader, and quality after five minutes of training each
    python benchmarks/bench.py --data DIR DIR --minutes 5 30 --seeds 0 1

What has been measured into --out already is not measured again; delete a part's file there to repeat it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import dreaming
import loader
import matplotlib
import quality
import throughput
from costs import phases, pillars, roofline
from measuring import Machine, machine_of, parser_with_machine

from aime.primitives.hardware import keep_freed_memory
from aime.primitives.interval_text import bounds_text

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {"aime": "#e8a33d", "aime_elbo_perceiver": "#f2cf94", "peer": "#4d6fa8"}
LABELS = {"aime": "AIME", "aime_elbo_perceiver": "AIME, ELBO and perceiver alone", "peer": "DreamerV3 (torchrl)"}


def once(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the file holds, measured now if it is not there."""
    if not path.exists():
        print(f"{path} …", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(measure(), indent=1) + "\n")
    return json.loads(path.read_text())


def rates_picture(found: dict[str, Any], lengths: tuple[int, ...], batches: tuple[int, ...], path: Path) -> None:
    """Training and imagination rates, side by side."""
    figure, (training, imagining) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for name, colour in COLOURS.items():
        rates = [found["throughput"][f"{name}_frames_per_second_T{length}"] for length in lengths]
        training.plot(lengths, rates, "o-", color=colour, label=LABELS[name])
        if f"{name}_steps_per_second_B1" in found["dreaming"]:
            rates = [found["dreaming"][f"{name}_steps_per_second_B{batch}"] for batch in batches]
            imagining.plot(batches, rates, "o-", color=colour, label=LABELS[name])
    training.set(xlabel="frames in a clip", ylabel="frames/s", ylim=(0, None), xscale="log")
    training.set_xticks(lengths, [str(length) for length in lengths])
    training.minorticks_off()
    training.set_title("training", loc="left")
    training.legend(frameon=False)
    imagining.set(xlabel="dreams side by side", ylabel="latent steps/s", xscale="log", yscale="log")
    imagining.set_title("imagination", loc="left")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def skill_picture(runs: list[dict[str, Any]], path: Path) -> None:
    """Skill against horizon, a panel for each data set and time, the mean over seeds."""
    settings = sorted({(run["data"], run["minutes"]) for run in runs})
    figure, axes = plt.subplots(
        1, len(settings), figsize=(4.2 * len(settings), 3.4), layout="constrained", squeeze=False, sharey=True
    )
    for axis, (data, minutes) in zip(axes[0], settings, strict=True):
        for name in ("aime", "peer"):
            curves = [run[name]["curves"]["skill"] for run in runs if (run["data"], run["minutes"]) == (data, minutes)]
            for curve in curves:
                axis.plot(range(1, len(curve) + 1), curve, color=COLOURS[name], alpha=0.35, lw=1)
            together = [mean(values) for values in zip(*curves, strict=True)]
            axis.plot(range(1, len(together) + 1), together, color=COLOURS[name], lw=2, label=LABELS[name])
        axis.axhline(0, color="#999999", lw=0.8)
        axis.set(xlabel="frames ahead", ylim=(-0.5, 1))
        axis.set_title(f"{Path(data).name}, {minutes:g} minutes", loc="left", fontsize=10)
    axes[0][0].set_ylabel("skill")
    axes[0][0].legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def table(found: dict[str, Any]) -> str:
    """Every figure as Markdown."""
    lines = ["# Benchmarks", "", ", ".join(f"{name} {value}" for name, value in found["machine"].items()), ""]
    for part in ("throughput", "dreaming", "costs", "loader"):
        lines += [f"## {part}", "", "| | |", "|---|---|"]
        lines += [f"| {name.replace('_', ' ')} | {value} |" for name, value in found[part].items()] + [""]
    lines += ["## quality", "", "| data | minutes | seed | model | steps | " + " | ".join(_measures()) + " |"]
    lines += ["|---" * (5 + len(_measures())) + "|"]
    for run in found["quality"]:
        for name in ("aime", "peer"):
            own = run[name]
            curves = [
                " / ".join(_cell(own["curves"][m][at - 1], own["intervals"][m][at - 1]) for at in quality.SHOWN)
                for m in _measures()[:-1]
            ]
            cells = [Path(run["data"]).name, f"{run['minutes']:g}", run["seed"], LABELS[name], own["steps"]]
            lines.append(
                "| " + " | ".join(map(str, [*cells, *curves, _cell(own["probe_r2"], own["probe_interval"])])) + " |"
            )
    return "\n".join(
        [
            *lines,
            "",
            f"Curves at {', '.join(map(str, quality.SHOWN))} frames ahead, in brackets 95 % intervals over episodes.",
            "",
        ]
    )


def _cell(value: float | None, bounds: tuple[float, float] | None) -> str:
    if value is None:
        return "no state"
    return f"{value:.2f} [{bounds_text(bounds, '.2f')}]" if bounds else f"{value:.2f}"


def _measures() -> list[str]:
    return ["skill", "skill_likeliest", "psnr", "ssim", "energy", "coverage", "probe R²"]


def main() -> None:
    """Measure what is missing, then write it all."""
    parser = parser_with_machine(__doc__)
    quality.add_options(parser)
    parser.add_argument("--frames", type=int, default=512, help="frames in a batch of the throughput part")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    keep_freed_memory()
    machine, preset, out = machine_of(options), options.preset, options.out
    found: dict[str, Any] = {"machine": machine.describe() | {"preset": preset}}
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "throughput": lambda: throughput.measure(
            preset, machine, options.frames, list(throughput.LENGTHS), rounds=5, with_peer=True
        ),
        "dreaming": lambda: dreaming.measure(preset, machine, rounds=7, with_peer=True),
        "costs": lambda: costs(preset, machine),
        "loader": lambda: loader.measure(preset, machine, (options.data or ["bundled:cartpole"])[0]),
    }
    for name, measure in parts.items():
        found[name] = once(out / f"{name}.json", measure)
    found["quality"] = [
        once(folder / "quality.json", partial(quality.record, setting, folder, list(quality.TRAINERS)))
        for setting, folder in quality.settings(options, out / "quality")
    ]
    (out / "bench.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / "bench.md").write_text(table(found))
    rates_picture(found, throughput.LENGTHS, dreaming.BATCHES, out / "rates.png")
    if found["quality"]:
        skill_picture(found["quality"], out / "skill.png")
    print(f"{out / 'bench.md'}, beside it bench.json and pictures")


def costs(preset: str, machine: Machine) -> dict[str, Any]:
    """All three views of a step."""
    hardware = machine.hardware()
    return pillars(preset, machine, rounds=5) | phases(preset, hardware) | roofline(preset, hardware)


if __name__ == "__main__":
    main()
