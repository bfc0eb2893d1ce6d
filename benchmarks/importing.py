"""Speed and memory of `aime import dmc-vb` on records as large as asked for, made for it and deleted after.

    python benchmarks/importing.py --gigabytes 5 --at /tmp

The records are DMC-VB's in form: episodes of 500 frames of noise, each compressed by itself, states, actions, rewards.
Memory is that of all processes of the command together (their proportional set sizes), looked at twice a second.
Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.io.importers.encoding import write_walker

from aime.data import open_dataset

EPISODE = 500
BYTES_PER_FRAME = 12_400
"""Of noise, which does not compress, and what comes with it."""


def memory_of(process: int) -> int:
    """Bytes of a process and all that came from it; of those that end meanwhile, none."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0
    own = next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return 1024 * own + sum(memory_of(int(child)) for child in children)


def measure(source: Path, out: Path, workers: int | None) -> tuple[float, int]:
    """Import, in seconds with the start of the command, and the most bytes of memory at once."""
    command = [sys.executable, "-m", "aime", "import", "dmc-vb", str(source), "--out", str(out)]
    began, peak = time.perf_counter(), 0
    with subprocess.Popen(command + ([] if workers is None else ["--workers", str(workers)])) as running:
        while running.poll() is None:
            peak = max(peak, memory_of(running.pid))
            time.sleep(0.5)
    if running.returncode:
        raise SystemExit(running.returncode)
    return time.perf_counter() - began, peak


def main() -> None:
    """Make, import, print, delete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=0.25)
    parser.add_argument("--workers", type=int, help="processes; by default one for each core")
    parser.add_argument("--at", type=Path, help="where there is room for twice as much; by default the temporary one")
    options = parser.parse_args()
    episodes = max(1, math.ceil(options.gigabytes * 1e9 / (EPISODE * BYTES_PER_FRAME)))
    with tempfile.TemporaryDirectory(dir=options.at) as place:
        source = write_walker(Path(place) / "source", [EPISODE] * episodes)
        size = sum(file.stat().st_size for file in source.iterdir())
        seconds, peak = measure(source, Path(place) / "out", options.workers)
        frames = open_dataset(Path(place) / "out").frames
    assert frames == episodes * EPISODE, f"{frames} frames came out of {episodes * EPISODE}"
    found = {
        "gigabytes": round(size / 1e9, 2),
        "episodes": episodes,
        "frames": frames,
        "seconds": round(seconds, 1),
        "frames_per_second": round(frames / seconds),
        "peak_mb": round(peak / 1e6),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
