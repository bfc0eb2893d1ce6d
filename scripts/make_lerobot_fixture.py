"""Write the data sets that the tests of `aime import lerobot` read, with LeRobot itself.

It needs an environment of its own, because AIME does without LeRobot:

    python -m venv /tmp/lerobot && /tmp/lerobot/bin/pip install 'lerobot==0.4.4'
    /tmp/lerobot/bin/python scripts/make_lerobot_fixture.py --out tests/io/importers/lerobot

There are two: `films`, whose frames are AV1 films, several episodes in one file, and `pictures`, whose frames lie in
the Parquet files. Beside each lies `expected.npz`: the frames that LeRobot was given, and the numbers that it reads.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

CAMERAS, SIZE, FPS, LENGTHS = ("observation.images.top", "observation.images.wrist"), (64, 96), 10, (12, 7, 9)


def frame(episode: int, step: int, camera: int) -> np.ndarray:
    """A bright square that goes right by 3 pixels a step, on a ground that tells the episode and the camera."""
    picture = np.full((*SIZE, 3), (40 + 50 * episode, 60, 120 * camera), np.uint8)
    left = (8 + 3 * step) % (SIZE[1] - 16)
    picture[24:40, left : left + 16] = 230
    return picture


def features(dtype: str) -> dict[str, Any]:
    """What a robot with two joints, three sensors and two cameras records."""
    vectors = {"action": ["shoulder", "elbow"], "observation.state": ["a", "b", "c"], "next.reward": ["reward"]}
    numbers = {name: {"dtype": "float32", "shape": (len(axes),), "names": axes} for name, axes in vectors.items()}
    pictures = {"dtype": dtype, "shape": (*SIZE, 3), "names": ["height", "width", "channels"]}
    done = {"dtype": "bool", "shape": (1,), "names": None}
    return {**numbers, "next.done": done, **{camera: dict(pictures) for camera in CAMERAS}}


def write(place: Path, dtype: str) -> None:
    """Record the episodes with LeRobot, and keep what it was given and what it reads."""
    data = LeRobotDataset.create("fixture/arm", FPS, features(dtype), root=place, use_videos=dtype == "video")
    random, given = np.random.default_rng(0), []
    for episode, length in enumerate(LENGTHS):
        for step in range(length):
            pictures = {camera: frame(episode, step, index) for index, camera in enumerate(CAMERAS)}
            given.append(np.stack(list(pictures.values())))
            data.add_frame(
                {
                    "action": random.uniform(-90, 90, 2).astype(np.float32),
                    "observation.state": random.uniform(-3, 3, 3).astype(np.float32),
                    "next.reward": random.uniform(size=1).astype(np.float32),
                    "next.done": np.array([step == length - 1]),
                    **pictures,
                    "task": "follow the square",
                }
            )
        data.save_episode()
    data.finalize()
    numbers = ("action", "observation.state", "next.reward", "next.done", "episode_index")
    table = LeRobotDataset("fixture/arm", root=place).hf_dataset.with_format("numpy", columns=list(numbers))
    np.savez_compressed(place / "expected.npz", frames=np.stack(given), **{name: table[:][name] for name in numbers})


def main() -> None:
    """Write both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory to write; one that is there is replaced")
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    for name, dtype in (("films", "video"), ("pictures", "image")):
        write(options.out / name, dtype)


if __name__ == "__main__":
    main()
