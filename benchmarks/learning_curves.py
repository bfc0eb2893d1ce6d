"""What agents learned, step by step, and how the world judged them: a picture from the logs of a run's agents.

    python benchmarks/learning_curves.py runs/mine --out learning.png

Left, the error of cloning on held-out actions (`agents/imitate/log.jsonl`); middle, the returns of the record and those
that the critic then promises in dreams (`agents/imagine/log.jsonl`); right, the returns of each evaluation that the run
has (`agents/*.json`), a dot an episode, with the mean and its 95 % interval.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("learning.png"))
    options = parser.parse_args()
    figure, (cloning, promised, judged) = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    draw(cloning, read_log(options.run / "agents/imitate/log.jsonl"), {"validation_error": "validation actions"})
    cloning.set(title="cloning", xlabel="step", ylabel="mean error (actions span 2)")
    lines = read_log(options.run / "agents/imagine/log.jsonl")
    draw(promised, lines, {"recorded_return": "recorded returns", "imagined_return": "dreamt returns"})
    promised.set(title="imagination", xlabel="step, of each", ylabel="mean discounted return")
    evaluations = sorted((options.run / "agents").glob("*.json"))
    draw_evaluations(judged, [json.loads(path.read_text(encoding="utf-8")) for path in evaluations])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=110)
    print(options.out)


def read_log(path: Path) -> list[dict[str, float]]:
    """The lines of a log, none where there is none."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def draw(axes: Any, lines: list[dict[str, float]], names: dict[str, str]) -> None:
    """A curve for each figure that the log has."""
    for name, label in names.items():
        points = [(line["step"], line[name]) for line in lines if name in line]
        if points:
            axes.plot(*zip(*points, strict=True), label=label)
    axes.legend()
    axes.grid(alpha=0.3)


def draw_evaluations(axes: Any, evaluations: list[dict[str, Any]]) -> None:
    """Episodes as dots, means with their intervals as bars."""
    for place, found in enumerate(evaluations):
        mean = found["mean"]
        axes.plot([place] * len(found["returns"]), found["returns"], "o", alpha=0.4, color="tab:gray")
        alone = mean["low"] is None
        reach = None if alone else [[mean["mean"] - mean["low"]], [mean["high"] - mean["mean"]]]
        axes.errorbar(place + 0.15, mean["mean"], reach, fmt="s", capsize=4, color="tab:blue")
    axes.set_xticks(range(len(evaluations)), [found["policy"] for found in evaluations])
    axes.set(title="in the real environment", ylabel="return of an episode")
    axes.grid(alpha=0.3, axis="y")


if __name__ == "__main__":
    main()
