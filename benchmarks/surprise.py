"""Does the surprise of latents find a wrong world? `python benchmarks/surprise.py [RUN] [--data DATA] [--split SPLIT]`.

Clips of data that the run has not learned from, and the same ones in a world that is wrong: another sign of the
actions, a robot that is commanded and stands still, frames that go on in another episode. The area under the curve is
the share of the pairs of a wrong and a right frame in which the wrong one is the more surprising: 0.5 is chance.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from aime import AIME, load_clips
from aime.data import Clips

BARS = {"negated actions": 0.70, "stands still": 0.80, "stands still, later": 0.80, "teleport": 0.95}
FIRST = 5
"""Frames that are too early to judge."""
AT_ONCE = 8


def wrong_worlds(clips: Clips) -> dict[str, tuple[Tensor, Tensor, slice]]:
    """Frames, actions and the frames that are wrong, by what is wrong."""
    frames, actions, middle = clips.frames, clips.actions, clips.frames.shape[1] // 2

    def still(start: int) -> Tensor:
        stopped = frames.clone()
        stopped[:, start:] = frames[:, start - 1 : start]
        return stopped

    elsewhere = torch.cat([frames[:, :middle], frames[:, middle:].roll(1, 0)], dim=1)
    return {
        "negated actions": (frames, -actions, slice(FIRST, None)),
        "stands still": (still(FIRST), actions, slice(FIRST, None)),
        "stands still, later": (still(middle), actions, slice(middle, None)),
        "teleport": (elsewhere, actions, slice(middle, middle + 1)),
    }


@torch.inference_mode()
def surprise(model: AIME, frames: Tensor, actions: Tensor) -> np.ndarray:
    """Of every frame `[B,T]`."""
    parts = zip(frames.split(AT_ONCE), actions.split(AT_ONCE), strict=True)
    return torch.cat([model.surprise(*(part.to(model.device) for part in pair)) for pair in parts]).cpu().numpy()


def area(wrong: np.ndarray, right: np.ndarray) -> float:
    """Mann and Whitney's statistic as a share."""
    ranks = rankdata(np.concatenate([wrong.ravel(), right.ravel()]))[: wrong.size]
    return float((ranks.sum() - wrong.size * (wrong.size + 1) / 2) / (wrong.size * right.size))


def interval(wrong: np.ndarray, right: np.ndarray, episodes: np.ndarray, draws: int = 1000) -> tuple[float, float]:
    """95 % of the areas of as many episodes, drawn with replacement."""
    generator, kinds = np.random.default_rng(0), np.unique(episodes)
    rows = [np.flatnonzero(episodes == kind) for kind in kinds]
    areas = []
    for _ in range(draws):
        drawn = np.concatenate([rows[number] for number in generator.integers(len(kinds), size=len(kinds))])
        areas.append(area(wrong[drawn], right[drawn]))
    low, high = np.quantile(areas, [0.025, 0.975])
    return float(low), float(high)


def table(results: Mapping[str, tuple[float, tuple[float, float]]]) -> str:
    """Markdown."""
    rows = [
        f"| {name} | {found:.2f} ({low:.2f} to {high:.2f}) | {BARS[name]:.2f} |"
        for name, (found, (low, high)) in results.items()
    ]
    return "\n".join(["| what is wrong | area (95 % over episodes) | at least |", "|---|---|---|", *rows])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", default="bundled:cartpole")
    parser.add_argument("--data", default="bundled:cartpole")
    parser.add_argument("--split", default="test")
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--length", type=int, default=50)
    options = parser.parse_args()
    model = AIME.from_pretrained(options.run)
    clips = load_clips(options.data, options.length, options.clips, options.split)
    first_round = len(load_clips(options.data, options.length, None, options.split, stride=10**9).frames)
    episodes = np.arange(len(clips.frames)) % first_round
    right = surprise(model, clips.frames, clips.actions)
    results = {}
    for name, (frames, actions, places) in wrong_worlds(clips).items():
        wrong = surprise(model, frames, actions)
        pair = wrong[:, places], right[:, FIRST:]
        results[name] = area(*pair), interval(*pair, episodes)
        print(name, results[name], flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
