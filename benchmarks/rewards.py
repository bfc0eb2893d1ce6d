"""Does the dream agree with the world? Correlation of predicted and true sums of rewards over held-out clips.

    python benchmarks/rewards.py runs/mine

The model sees 5 frames, then imagines 15 steps under the actions of the clip, along its most likely future; what its
reward head expects of the arrivals is summed, and held against what came.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from measuring import correlations

from aime.data.clips import clip_starts, read_clips
from aime.dynamics.choices import likeliest
from aime.inference.loading import load_run
from aime.inference.unseen import open_unseen
from aime.primitives.interval_text import NO_INTERVAL, bounds_text
from aime.primitives.intervals import interval_over

AT_ONCE = 32
"""Clips that are perceived in one pass."""


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", default=None, help="by default the test part of the run's own")
    parser.add_argument("--context", type=int, default=5)
    parser.add_argument("--horizon", type=int, default=15)
    parser.add_argument("--clips", type=int, default=192)
    options = parser.parse_args()
    info, model = load_run(options.run)
    control = model.dynamics.expect_rewards()
    unseen = open_unseen(info, options.data, options.context, options.horizon)
    length = options.context + options.horizon
    places = clip_starts(unseen.dataset, length, options.clips)
    clips = read_clips(unseen.dataset, places, length)
    expected, came = [], []
    for part in torch.arange(len(clips.frames)).split(AT_ONCE):
        seen = clips.actions[part, : options.context].to(model.device)
        track = model.forward_sequence(clips.frames[part, : options.context], seen).track
        start = model.dynamics.states_at(track, -1)
        actions = clips.actions[part, options.context - 1 : -1].to(model.device)
        dream = model.dynamics.rollout(start, actions, likeliest)
        expected.append(control.reward(*dream.read).mean.sum(1).cpu())
        came.append(clips.rewards[part, options.context :].sum(1))
    predicted, true = torch.cat(expected).numpy(), torch.cat(came).numpy()
    correlation = interval_over(lambda counts: correlations(counts, predicted[:, None], true[:, None]), places.episodes)
    result = {
        "correlation": correlation.mean,
        "interval": correlation.bounds,
        "episodes": len(set(places.episodes.tolist())),
        "mean_predicted": float(predicted.mean()),
        "mean_true": float(true.mean()),
        "clips": len(true),
    }
    print(
        f"{options.run}: reward sums over {options.horizon} steps, correlation {correlation.mean:.3f} "
        f"[{bounds_text(correlation.bounds, '.3f') or NO_INTERVAL}]"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
