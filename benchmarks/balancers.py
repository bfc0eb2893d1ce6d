"""The price of a gradient balancer: time and memory of the whole training step, as ratios to the plain sum.

    python benchmarks/balancers.py --preset tiny

Each balancer runs in a process of its own, for its peak of memory; the processes take turns, a step each, because
machines drift, and the ratio of time is the median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from speed import seconds, synthetic_clips

from aime.training.checkpoint import Progress
from aime.training.hardware import choose_hardware, keep_freed_memory
from aime.training.presets import preset_run
from aime.training.trainer import Trainer
from aime.world_model.model import AIME
from aime.world_model.presets import PRESETS


def measure(name: str, options: argparse.Namespace, line: Connection) -> None:
    """One balancer's process: a training step and its seconds at every request, the peak in MB at the last."""
    torch.manual_seed(0)
    keep_freed_memory()
    hardware = choose_hardware(options.device, options.precision)
    shape = options.batch, options.length
    config = preset_run(options.preset, "noise", Path("unused"), 1, 64)
    config = replace(config, balancer=name, batch=shape[0], length=shape[1])
    trainer = Trainer(config, AIME(config.model), hardware)
    # near the end of a run, where every task is heard
    clips, progress = [synthetic_clips(*shape, 1)], Progress(seconds=54.0)
    while line.recv():
        line.send(seconds(lambda: trainer.step(clips, progress), hardware))
    on_gpu = hardware.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line.send(peak / 2**20)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="tiny")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--batch", type=int, default=4, help="clips in a batch")
    parser.add_argument("--length", type=int, default=32, help="frames in a clip")
    parser.add_argument("--rounds", type=int, default=7, help="alternating rounds, after two of warm-up")
    parser.add_argument("--balancers", nargs="+", default=["rgb"], help="what to hold against the sum")
    options = parser.parse_args()
    # a fork would take over the parent's threads and GPU
    context = multiprocessing.get_context("spawn")
    lines, processes = {}, []
    for name in ("sum", *options.balancers):
        lines[name], far_end = context.Pipe()
        processes.append(context.Process(target=measure, args=(name, options, far_end), daemon=True))
        processes[-1].start()
        far_end.close()
    rounds = [{name: ask(line, True) for name, line in lines.items()} for _ in range(options.rounds + 2)][2:]
    memory = {name: ask(line, False) for name, line in lines.items()}
    figures: dict[str, object] = {"preset": options.preset, "clips": [options.batch, options.length]}
    for name in lines:
        figures[f"{name}_seconds"] = round(statistics.median(each[name] for each in rounds), 4)
        figures[f"{name}_peak_mb"] = round(memory[name])
    for name in options.balancers:
        figures[f"{name}_time_over_sum"] = round(statistics.median(each[name] / each["sum"] for each in rounds), 3)
        figures[f"{name}_memory_over_sum"] = round(memory[name] / memory["sum"], 3)
    for name, value in figures.items():
        print(f"{name:32} {value}")
    print(json.dumps(figures))


def ask(line: Connection, go_on: bool) -> float:
    """Request a step, or the peak of memory, and wait for it."""
    line.send(go_on)
    return line.recv()


if __name__ == "__main__":
    main()
