"""Training throughput, parallelism in time and imagination speed of a preset, as one table and one JSON line.

    python benchmarks/speed.py --preset tiny

Ratios are medians over alternating pairs of measurements in one process, because machines drift.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from aime.data import Clips
from aime.training.checkpoint import Progress
from aime.training.hardware import Hardware, choose_hardware, keep_freed_memory
from aime.training.presets import preset_run
from aime.training.trainer import Trainer
from aime.world_model import imagination
from aime.world_model.model import AIME
from aime.world_model.presets import PRESETS


def synthetic_clips(batch: int, length: int, action_width: int, size: int = 64) -> Clips:
    """A batch of noise: speed does not depend on what the frames show."""
    valid = torch.ones(batch, length, dtype=torch.bool)
    return Clips(
        frames=torch.randint(0, 256, (batch, length, size, size, 3), dtype=torch.uint8).permute(0, 1, 4, 2, 3),
        actions=torch.rand(batch, length, action_width) * 2 - 1,
        rewards=torch.zeros(batch, length),
        terminated=torch.zeros(batch, length, dtype=torch.bool),
        valid=valid,
        action_valid=valid,
        reward_valid=valid,
        states=None,
    )


def seconds(action: Callable[[], object], hardware: Hardware) -> float:
    """Wall time of one call, the device's queue included."""
    hardware.synchronize()
    start = time.perf_counter()
    action()
    hardware.synchronize()
    return time.perf_counter() - start


def training_step(preset: str, batch: int, length: int, hardware: Hardware) -> Callable[[], object]:
    """The whole optimizer step of a preset on clips of one shape."""
    config = replace(preset_run(preset, "noise", Path("unused"), 1, 64), batch=batch, length=length)
    model = AIME(config.model)
    trainer = Trainer(config, model, hardware)
    # near the end of a run, where every task is heard
    clips, progress = [synthetic_clips(batch, length, 1)], Progress(seconds=54.0)
    return lambda: trainer.step(clips, progress)


def imagination_rate(preset: str, batch: int, hardware: Hardware, horizon: int = 45) -> float:
    """Latent steps per second of `batch` dreams rolled side by side, no frame decoded."""
    model = AIME(PRESETS[preset](1, 64)).to(hardware.device).eval()
    belief, cell = model.dynamics.initial(batch)
    latent = torch.zeros(batch, model.config.latent, device=hardware.device)
    state = model.arrive(belief, cell, latent, latent)
    actions = torch.zeros(batch, horizon, 1, device=hardware.device)
    with torch.inference_mode():
        times = [
            seconds(lambda: imagination.rollout(model, state, actions, imagination.sampled), hardware) for _ in range(6)
        ]
    return batch * horizon / statistics.median(times[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="tiny")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--frames", type=int, default=256, help="frames in a batch, B·T")
    parser.add_argument("--rounds", type=int, default=7, help="alternating rounds, after three of warm-up")
    options = parser.parse_args()
    keep_freed_memory()
    hardware = choose_hardware(options.device, options.precision)
    lengths = (16, 32, 64)
    steps = {t: training_step(options.preset, options.frames // t, t, hardware) for t in lengths}
    rounds = [{t: seconds(step, hardware) for t, step in steps.items()} for _ in range(options.rounds + 3)][3:]
    figures: dict[str, object] = {
        "preset": options.preset,
        "device": str(hardware.device),
        "precision": str(hardware.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in AIME(PRESETS[options.preset](1, 64)).parameters()),
        **{
            f"frames_per_second_T{t}": round(options.frames / statistics.median(each[t] for each in rounds), 1)
            for t in lengths
        },
        "time_T64_over_T16": round(statistics.median(each[64] / each[16] for each in rounds), 3),
        **{
            f"imagined_steps_per_second_B{b}": round(imagination_rate(options.preset, b, hardware))
            for b in (1, 16, 256)
        },
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    for name, value in figures.items():
        print(f"{name:32} {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
