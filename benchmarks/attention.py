"""How well a cartpole run's attention follows the cart, which no label ever named: correlation with its place.

    python benchmarks/attention.py runs/demo

The episodes of the test part keep the simulator's state. The place of the cart is projected through dm_control's camera
(the extra `dmc`) to the column of the picture where it is seen, and held against the column of the centre of mass of
each map: U_t, which sees the frame, P_t, which does not, A_t, fused of both, and the prior map rolled open-loop through
an imagined future. Intervals are over episodes.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from measuring import correlations
from torch import Tensor

from aime.attention.maps import centre_of_mass
from aime.data import Clips, open_dataset
from aime.data.clips import clip_starts, read_clips
from aime.inference.loading import load_run
from aime.primitives.interval_text import bounds_text
from aime.primitives.intervals import Interval, interval_over
from aime.world_model.model import AIME

CONTEXT = 5
"""Frames seen before a map counts, and before the open-loop future begins."""


def cart_columns(states: Float[np.ndarray, "B T S"], size: int) -> Float[np.ndarray, "B T"]:
    """Column of the frame, in pixels from its left edge, at which camera 0 sees the cart of states (x, angle, …)."""
    from dm_control import suite

    physics = suite.load("cartpole", "swingup").physics
    scale = size / 2 / np.tan(np.deg2rad(physics.model.cam_fovy[0]) / 2)
    columns = np.empty(states.shape[:2])
    for place in np.ndindex(columns.shape):
        with physics.reset_context():
            physics.data.qpos[:] = states[place][:2]
        seen = physics.data.cam_xmat[0].reshape(3, 3).T @ (physics.named.data.xpos["cart"] - physics.data.cam_xpos[0])
        columns[place] = size / 2 - scale * seen[0] / seen[2]
    return columns


def followed(
    maps: Float[Tensor, "B T h w"], columns: Float[np.ndarray, "B T"], episodes: Int64[np.ndarray, " B"]
) -> tuple[Interval, Interval]:
    """Pearson's r of the maps' centres of mass with the cart's columns: over all frames, and the mean over clips."""
    centres = centre_of_mass(maps.double())[..., 0].numpy()
    own = np.array([np.corrcoef(*pair)[0, 1] for pair in zip(centres, columns, strict=True)])
    pooled = interval_over(lambda counts: correlations(counts, centres, columns), episodes)
    return pooled, interval_over(lambda counts: counts @ own / counts.sum(1), episodes)


@torch.no_grad()
def attention_maps(model: AIME, clips: Clips) -> dict[str, Float[Tensor, "B T h w"]]:
    """The maps of frames 5 and later by name, in the order of the table."""
    attention = model.forward_sequence(clips.frames, clips.actions, clips.action_valid).attention
    future = model.predict_future(clips.frames[:, :CONTEXT], clips.actions)
    maps = {"U, bottom-up": attention.bottom_up, "P, prior": attention.prior, "A, fused": attention.fused}
    return {name: each[:, CONTEXT:].cpu() for name, each in maps.items()} | {"P, open-loop": future.attention.cpu()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", default="bundled:cartpole")
    parser.add_argument("--clips", type=int, default=48, help="clips of the test part")
    parser.add_argument("--length", type=int, default=50, help="frames in a clip")
    options = parser.parse_args()
    _, model = load_run(options.run)
    dataset = open_dataset(options.data, "test")
    places = clip_starts(dataset, options.length, options.clips)
    clips = read_clips(dataset, places, options.length)
    assert clips.states is not None, f"{options.data} holds no states"
    columns = cart_columns(clips.states.double().numpy(), model.config.image_size)[:, CONTEXT:]
    measured = {}
    print(
        f"{options.run}: correlation of the map's centre with the cart's column, {len(columns)} clips of the test part"
    )
    print(f"{'map':16} {'pooled':>20} {'mean over clips':>20} {'most on a cell, of uniform':>27}")
    for name, maps in attention_maps(model, clips.to(model.device)).items():
        pooled, mean = followed(maps, columns, places.episodes)
        peak = float(maps.amax(dim=(-2, -1)).mean()) * maps[0, 0].numel()
        measured[name] = {"pooled": asdict(pooled), "mean_over_clips": asdict(mean), "peak": peak}
        print(f"{name:16} {_text(pooled):>20} {_text(mean):>20} {peak:27.1f}")
    print(json.dumps(measured))


def _text(found: Interval) -> str:
    return f"{found.mean:.3f} [{bounds_text(found.bounds, '.2f')}]"


if __name__ == "__main__":
    main()
