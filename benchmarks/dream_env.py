"""Steps a second of `aime/Dream-v0` in its vector form, with latents and with frames.

python benchmarks/dream_env.py --preset tiny
python benchmarks/dream_env.py --run runs/mine

The two kinds of observation take turns, round by round; the first rounds are not counted. Beside the wall clock stands
the time that the process itself computed for, which other work on the machine does not touch: with one thread, the
rate that one core gives.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import gymnasium
import numpy as np
import torch

from aime.data import open_dataset
from aime.primitives.config_io import to_yaml
from aime.primitives.tensor_files import save_weights
from aime.world_model.model import AIME
from aime.world_model.presets import PRESETS

WARM_UP = 2
"""Rounds that are not counted."""

STEPS_A_ROUND = {"latents": 50, "frames": 2}

DATA = "bundled:cartpole"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="tiny", help="of an untrained model")
    parser.add_argument("--run", type=Path, help="a run in place of an untrained model")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        run = options.run or untrained(options.preset, Path(place))
        for name, (wall, computed) in measure(run, options.batch, options.rounds).items():
            rates = f"{options.batch / wall:10.0f} steps/s   {options.batch / computed:10.0f} a second of computing"
            print(f"{name:8} batch {options.batch}, {torch.get_num_threads()} threads: {rates}")


def untrained(preset: str, place: Path) -> Path:
    """A run directory with random weights: speed does not depend on them."""
    config = PRESETS[preset](open_dataset(DATA).action_width, 64)
    save_weights(AIME(config).state_dict(), place / "checkpoint" / "ema.safetensors")
    settings = {"preset": preset, "model": config, "train": {"data": DATA, "seed": 0}}
    (place / "config.yaml").write_text(to_yaml(settings))
    return place


def measure(run: Path, batch: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Median seconds of a step of all dreams, by the wall clock and by the process's own, for each observation."""
    environments = {
        kind: gymnasium.make_vec(
            "aime.environments:aime/Dream-v0",
            batch,
            vectorization_mode="vector_entry_point",
            run=run,
            observations=kind,
            starts=64,
        )
        for kind in STEPS_A_ROUND
    }
    for environment in environments.values():
        environment.reset(seed=0)
    generator = np.random.default_rng(0)
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in environments}
    for _ in range(rounds + WARM_UP):
        for kind, environment in environments.items():
            times[kind].append(one_round(environment, generator, STEPS_A_ROUND[kind]))
    counted = {kind: zip(*each[WARM_UP:], strict=True) for kind, each in times.items()}
    return {kind: tuple(statistics.median(clock) for clock in clocks) for kind, clocks in counted.items()}


def one_round(
    environment: gymnasium.vector.VectorEnv, generator: np.random.Generator, steps: int
) -> tuple[float, float]:
    """Seconds of a step by both clocks."""
    actions = generator.uniform(-1, 1, (steps, *(environment.action_space.shape or ()))).astype(np.float32)
    wall, computed = time.perf_counter(), time.process_time()
    for action in actions:
        environment.step(action)
    return (time.perf_counter() - wall) / steps, (time.process_time() - computed) / steps


if __name__ == "__main__":
    main()
