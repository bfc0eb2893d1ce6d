"""What all benchmarks share: clips of noise, a clock, contenders that take turns, and the machine's description."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64

from aime.data import Clips
from aime.primitives.hardware import Hardware, choose_hardware, keep_freed_memory
from aime.world_model.presets import PRESETS

Figures = dict[str, float | int | str]
"""What a benchmark found, by name."""

Make = Callable[[Hardware], Callable[[], object]]
"""Sets a contender up and gives what to time; a partial of a module's function, so that a new process can have it."""

WARM_UP, WARM_UP_ON_GPU = 2, 5
"""Rounds that are not counted; on a GPU the fourth and fifth record."""


class Machine(NamedTuple):
    """What to compute on, as a command line asks for it."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def hardware(self) -> Hardware:
        """The device and precision."""
        return choose_hardware(self.device, self.precision)

    def describe(self) -> Figures:
        """Device, precision, threads and versions."""
        hardware = self.hardware()
        on_gpu = hardware.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name() if on_gpu else _processor(),
            "precision": str(hardware.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        }


class Race(NamedTuple):
    """Contenders' times, and their memory."""

    rounds: list[dict[str, float]]
    """Seconds by name."""
    peak_mb: dict[str, float]
    """The most memory that each one's process held: on a GPU what torch allocated there."""

    def seconds(self, name: str) -> float:
        """The median."""
        return statistics.median(each[name] for each in self.rounds)

    def ratio(self, name: str, over: str) -> float:
        """The median over rounds of one's time over another's in the same round."""
        return statistics.median(each[name] / each[over] for each in self.rounds)


def race(contenders: dict[str, Make], rounds: int, machine: Machine) -> Race:
    """Let contenders take turns, because machines drift; each lives in a process of its own, for its peak of memory."""
    # a fork would take over the parent's threads and GPU
    context = multiprocessing.get_context("spawn")
    lines: dict[str, Connection] = {}
    for name, make in contenders.items():
        lines[name], far_end = context.Pipe()
        context.Process(target=_contend, args=(make, machine, far_end), daemon=True).start()
        far_end.close()
    warm_up = WARM_UP_ON_GPU if machine.hardware().device.type == "cuda" else WARM_UP
    turns = [{name: _ask(line, True) for name, line in lines.items()} for _ in range(rounds + warm_up)]
    return Race(turns[warm_up:], {name: _ask(line, False) for name, line in lines.items()})


def _ask(line: Connection, go_on: bool) -> float:
    line.send(go_on)
    return line.recv()


def _contend(make: Make, machine: Machine, line: Connection) -> None:
    """A contender's process: the seconds of its act at every request, the peak in MB at the last."""
    torch.manual_seed(0)
    keep_freed_memory()
    hardware = machine.hardware()
    act = make(hardware)
    while line.recv():
        line.send(seconds(act, hardware))
    on_gpu = hardware.device.type == "cuda"
    line.send((torch.cuda.max_memory_allocated() if on_gpu else _most_resident()) / 2**20)


def _most_resident() -> int:
    """This process's peak in bytes; getrusage would give the parent's, if that was higher at the start."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def seconds(action: Callable[[], object], hardware: Hardware) -> float:
    """Wall time of one call, the device's queue included."""
    hardware.synchronize()
    start = time.perf_counter()
    action()
    hardware.synchronize()
    return time.perf_counter() - start


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


def parser_with_machine(description: str | None) -> argparse.ArgumentParser:
    """A parser with preset, device and precision."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="tiny")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    return parser


def machine_of(options: argparse.Namespace) -> Machine:
    """What the flags ask for."""
    return Machine(options.device, options.precision)


def show(figures: Figures) -> None:
    """Print a table, and the same as one line of JSON."""
    for name, value in figures.items():
        print(f"{name:48} {value}")
    print(json.dumps(figures))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def correlations(
    counts: Float64[np.ndarray, "R B"], left: Float[np.ndarray, "B N"], right: Float[np.ndarray, "B N"]
) -> Float64[np.ndarray, " R"]:
    """Pearson's r of two quantities over R sets of clips, with N values each, by how often each clip is counted."""
    x, y = left.astype(np.float64) - left.mean(), right.astype(np.float64) - right.mean()
    number = counts.sum(1) * x.shape[1]
    sum_x, sum_y, xx, yy, xy = (counts @ each.sum(1) / number for each in (x, y, x * x, y * y, x * y))
    return (xy - sum_x * sum_y) / np.sqrt((xx - sum_x**2) * (yy - sum_y**2))
