"""Record and pack the bundled data set `bundled:cartpole`.

Cartpole swing-up of the DeepMind Control Suite, 64x64, camera 0, action repeat 4, no shadows and no reflections: 200
episodes of 100 frames to train on, 24 for validation and 28 for the test, recorded with other seeds. In each part every
other episode acts at random and the rest smoothly.

    MUJOCO_GL=egl python scripts/make_bundled.py --out src/aime/data/bundled/cartpole.npy.xz
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from aime.data.bundled import PARTS, Part
from aime.data.dataset import Dataset
from aime.data.episodes import Episode
from aime.data.opening import open_dataset
from aime.data.pack_writer import pack
from aime.data.shards import write_shard
from aime.io.collect.collect import collect
from aime.io.collect.policies import Policy
from aime.io.collect.recording import Recording

EPISODES: dict[Part, int] = {"train": 200, "validation": 24, "test": 28}
SEEDS: dict[Part, dict[Policy, int]] = {
    "train": {"random": 101, "smooth": 102},
    "validation": {"random": 901, "smooth": 902},
    "test": {"random": 1901, "smooth": 1902},
}


@dataclass(frozen=True)
class Options:
    """Record and pack the bundled cartpole data set."""

    out: Path
    """The packed file to write; it must not exist."""
    raw: Path | None = None
    """Where to keep the recordings; a rerun goes on with those that it finds there."""
    workers: int = 2
    """Processes to record in."""


def record(part: Part, raw: Path, workers: int) -> Dataset:
    """Record both policies of a part, then join them, an episode of the one after an episode of the other."""
    recordings = [
        Recording("cartpole", "swingup", 100, policy, seed, "none", 4, image_size=64, camera=0, masks=True)
        for policy, seed in SEEDS[part].items()
    ]
    for recording in recordings:
        collect([recording], raw / part / recording.policy, EPISODES[part] // 2, workers)
    sources = [open_dataset(raw / part / recording.policy) for recording in recordings]
    episodes: list[Episode] = [episode for pair in zip(*sources, strict=True) for episode in pair]
    both = {"policy": "random, smooth", "seed": ", ".join(str(seed) for seed in SEEDS[part].values())}
    attributes = {name: value for name, value in sources[0].attributes.items() if name != "first_episode"}
    joined = raw / part / "joined.h5"
    joined.unlink(missing_ok=True)
    write_shard(joined, episodes, attributes | both)
    return open_dataset(joined)


def main(options: Options) -> None:
    """Record, pack, and say how large the pack is."""
    with tempfile.TemporaryDirectory() as temporary:
        raw = options.raw or Path(temporary)
        parts = {part: record(part, raw, options.workers) for part in PARTS}
        pack(parts, options.out)
    frames = sum(data.frames for data in parts.values())
    print(f"{options.out}: {frames} frames in {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(tyro.cli(Options))
