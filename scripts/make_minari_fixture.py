"""Write the data set that the tests of `aime import minari` read, with Minari itself.

It needs an environment of its own, because AIME does without Minari:

    python -m venv /tmp/minari && /tmp/minari/bin/pip install 'minari[hdf5]' pillow
    /tmp/minari/bin/python scripts/make_minari_fixture.py --out tests/io/importers/minari

Beside the data set, in which Minari keeps frames as JPEG files, lies `expected.npz`: what Minari reads from it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
from gymnasium import spaces

NAME, SIZE, LENGTHS = "fixture/drive-v0", (32, 48), (6, 4)


class Drive(gymnasium.Env):
    """A bright bar that actions in [-2, 2] x [0, 5] move; ends after a number of steps that the seed says."""

    def __init__(self) -> None:
        frames = spaces.Box(0, 255, (*SIZE, 3), np.uint8)
        self.observation_space = spaces.Dict({"camera": frames, "pose": spaces.Box(-np.inf, np.inf, (3,), np.float64)})
        self.action_space = spaces.Box(np.array([-2, 0], np.float32), np.array([2, 5], np.float32))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The episode of LENGTHS[seed] steps."""
        super().reset(seed=seed)
        self.place, self.time, self.end = 10.0, 0, LENGTHS[seed or 0]
        return self._see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move the bar; the reward is how far."""
        self.place, self.time = self.place + float(np.sum(action)), self.time + 1
        return self._see(), float(np.sum(action)), self.time == self.end, False, {}

    def _see(self) -> dict[str, Any]:
        frame = np.zeros((*SIZE, 3), np.uint8)
        frame[..., 1] = 20 * self.time
        left = int(self.place) % (SIZE[1] - 8)
        frame[8:24, left : left + 8] = (250, 200, 40)
        return {"camera": frame, "pose": np.array([self.place, self.time, 0.5])}


def main() -> None:
    """Record, and read again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="replaced")
    out = parser.parse_args().out
    place = os.environ["MINARI_DATASETS_PATH"] = tempfile.mkdtemp()
    gymnasium.register("Drive-v0", entry_point=f"{__name__}:Drive")
    collector = minari.DataCollector(gymnasium.make("Drive-v0", disable_env_checker=True))
    collector.action_space.seed(0)
    for seed in range(len(LENGTHS)):
        collector.reset(seed=seed)
        ended = False
        while not ended:
            *_, ended, _, _ = collector.step(collector.action_space.sample())
    collector.create_dataset(NAME, algorithm_name="random", author="AIME", description="a bar that moves")
    known: dict[str, np.ndarray] = {}
    for episode in minari.load_dataset(NAME).iterate_episodes():
        fields = {**episode.observations, "actions": episode.actions, "rewards": episode.rewards}
        for name, values in {**fields, "terminations": episode.terminations}.items():
            known[f"{episode.id}/{name}"] = np.asarray(values)
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(Path(place) / NAME, out)
    np.savez_compressed(out / "expected.npz", **known)  # type: ignore[arg-type]
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
