"""`aime doctor`: what is installed on this machine."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aime.cli.arguments import parse

MEMORY_NEEDED, DISK_NEEDED = 2e9, 2e9
"""Bytes: `tiny` trains in 2 GB, and the demo's run with its checkpoints takes less."""


@dataclass(frozen=True)
class DoctorOptions:
    """Check what is installed on this machine, and say how to install what is missing."""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        part: what was checked.
        found: the result.
        remedy: how to install what is missing; empty if nothing is.
        optional: whether training works without it.
    """

    part: str
    found: str
    remedy: str = ""
    optional: bool = False

    @property
    def mark(self) -> str:
        """A tick, a dash for something optional that is missing, or an exclamation mark."""
        if not self.remedy:
            return "[green]✓[/]"
        return "[dim]–[/]" if self.optional else "[yellow]![/]"


def main(arguments: list[str]) -> int:
    """Run `aime doctor` and return the exit status, always 0."""
    parse(DoctorOptions, "doctor", arguments)
    console = Console()
    table = Table("", "part", "found", "remedy")
    with console.status("checking"):
        for finding in examine():
            table.add_row(finding.mark, finding.part, escape(finding.found), escape(finding.remedy))
    console.print(table)
    return 0


def examine() -> Iterator[Finding]:
    """Run all checks; a failed check does not stop the others."""
    checks: tuple[Callable[[], Finding], ...] = (
        _python,
        _torch,
        _cores,
        _memory,
        _bf16,
        _cuda,
        _dm_control,
        _rendering,
        _bundled,
        _bundled_models,
        _webp,
        _av,
        _disk,
    )
    for check in checks:
        try:
            yield check()
        except Exception as error:  # a broken installation must not stop the other checks
            part = check.__name__.strip("_").replace("_", " ")
            yield Finding(part, " ".join(f"{type(error).__name__}: {error}".split()), "install aime again")


def _python() -> Finding:
    found = platform.python_version()
    fits = (3, 11) <= tuple(int(number) for number in found.split(".")[:2]) < (3, 13)
    return Finding("Python", found, "" if fits else "use Python 3.11 or 3.12")


def _torch() -> Finding:
    return Finding("aime, torch", f"{version('aime')}, {version('torch')}")


def _cores() -> Finding:
    import torch

    return Finding("cores", f"{len(os.sched_getaffinity(0))} to use, {torch.get_num_threads()} threads in torch")


def _memory() -> Finding:
    fields = (line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    kilobytes = {name: int(value.split()[0]) for name, value in fields}
    total, free = kilobytes["MemTotal"] * 1024, kilobytes["MemAvailable"] * 1024
    remedy = "" if free >= MEMORY_NEEDED else "close other programs, or train with a smaller batch"
    return Finding("memory", f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free", remedy)


def _bf16() -> Finding:
    from aime.primitives.hardware import has_bf16

    flags = Path("/proc/cpuinfo").read_text().split()
    names = [name for name in ("avx512_bf16", "amx_bf16", "bf16") if name in flags]
    if has_bf16("cpu"):
        return Finding("bf16 on the CPU", ", ".join(names) or "yes")
    return Finding("bf16 on the CPU", "no", "fp32 is used, at about half the speed", True)


def _cuda() -> Finding:
    import torch

    from aime.primitives.hardware import has_bf16

    if not torch.cuda.is_available():
        built = torch.version.cuda is not None
        remedy = "check the driver with nvidia-smi" if built else "to use one, install a CUDA build of torch"
        return Finding("CUDA", "no device", remedy, optional=True)
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Finding("CUDA", f"{', '.join(names)}; bf16 {'yes' if has_bf16('cuda') else 'no'}")


def _dm_control() -> Finding:
    try:
        simulator, control = version("mujoco"), version("dm-control")
    except PackageNotFoundError as error:
        return Finding("dm_control", f"{error.name} is not installed", "to record, run `pip install 'aime[dmc]'`", True)
    fits = int(simulator.split(".")[0]) < 4
    found = f"{control} with mujoco {simulator}"
    return Finding("dm_control", found, "" if fits else "dm_control needs mujoco 3: run `pip install 'mujoco<4'`")


def _rendering() -> Finding:
    from aime.io.collect.environment import rendering_problem

    library = os.environ.get("MUJOCO_GL", "egl")
    problem, _, remedy = (rendering_problem() or "").partition("; ")
    if not problem:
        return Finding("rendering", f"works with MUJOCO_GL={library}")
    return Finding("rendering", problem, f"to record, {remedy}", optional=True)


def _bundled() -> Finding:
    from aime.data.bundled import bundled_names

    return _names("bundled data", bundled_names())


def _bundled_models() -> Finding:
    from aime.world_model.bundled import bundled_runs

    return _names("bundled models", bundled_runs())


def _names(what: str, names: list[str]) -> Finding:
    found = ", ".join(f"bundled:{name}" for name in names)
    return Finding(what, found or "none", "" if found else "install aime again")


def _webp() -> Finding:
    from PIL import features

    if features.check("webp"):
        return Finding("animated WebP", f"Pillow {version('pillow')}")
    return Finding("animated WebP", "Pillow has no WebP", "run `pip install --force-reinstall pillow`, or write .gif")


def _av() -> Finding:
    if importlib.util.find_spec("av") is not None:
        return Finding("MP4", f"av {version('av')}")
    return Finding("MP4", "av is not installed", "to write .mp4, run `pip install 'aime[video]'`", True)


def _disk() -> Finding:
    free = {str(place): shutil.disk_usage(place).free for place in (Path.cwd(), Path(tempfile.gettempdir()))}
    found = ", ".join(f"{size / 1e9:.1f} GB free in {place}" for place, size in free.items())
    return Finding("disk", found, "" if min(free.values()) >= DISK_NEEDED else "free some space")
