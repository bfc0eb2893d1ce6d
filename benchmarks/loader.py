"""Does the loader keep up? Clips per second, cold and warm, beside what the training step asks for.

python benchmarks/loader.py --data bundled:cartpole
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from pathlib import Path

from measuring import Figures, Machine, machine_of, parser_with_machine, show
from steps import NEAR_THE_END, aime_learning

from aime.data import ClipSampler, Dataset, open_dataset, prefetch
from aime.training.presets import preset_run

BATCHES = 64
STEPS = 30
WARM_UP = 3


def measure(preset: str, machine: Machine, data: str) -> Figures:
    """Rates of reading alone, and the share of a training step that waits for clips."""
    dataset = open_dataset(data, "train")
    config = preset_run(preset, data, Path("unused"), dataset.action_width, dataset.image_size)
    sampler = ClipSampler(dataset, config.batch, config.length, config.seed)
    _forget(dataset)
    cold = _clips_per_second(sampler, 0)
    warm = _clips_per_second(sampler, 0)
    hardware = machine.hardware()
    joint = aime_learning(config, hardware)
    clips = prefetch(sampler, start=0, pin_memory=hardware.device.type == "cuda")
    waits, wholes = [], []
    for step in range(STEPS + WARM_UP):
        start = time.perf_counter()
        batch = next(clips)
        waits.append(time.perf_counter() - start)
        joint.step([batch], step, NEAR_THE_END)
        hardware.synchronize()
        wholes.append(time.perf_counter() - start)
    clips.close()
    waits, wholes = waits[WARM_UP:], wholes[WARM_UP:]
    return {
        "loader_clips_per_second_cold": round(cold, 1),
        "loader_clips_per_second_warm": round(warm, 1),
        "step_asks_for_clips_per_second": round(config.batch / statistics.median(wholes), 1),
        "wait_share_of_step": round(sum(waits) / sum(wholes), 5),
    }


def _clips_per_second(sampler: ClipSampler, start: int) -> float:
    began = time.perf_counter()
    count = sum(len(clips.frames) for clips in itertools.islice(prefetch(sampler, start, start + BATCHES), BATCHES))
    return count / (time.perf_counter() - began)


def _forget(dataset: Dataset) -> None:
    """Drop the data's files from the kernel's page cache."""
    for path in dataset.files:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    """Measure and print."""
    parser = parser_with_machine(__doc__)
    parser.add_argument("--data", default="bundled:cartpole")
    options = parser.parse_args()
    machine = machine_of(options)
    show(machine.describe() | measure(options.preset, machine, options.data))


if __name__ == "__main__":
    main()
