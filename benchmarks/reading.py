"""How fast random clips come from shards on disk: frames per second, and per second of processor time.

The memory of decoded frames is switched off, as if the data were far larger than it.

python benchmarks/reading.py --make /tmp/frames --frames 20000
python benchmarks/reading.py --data /tmp/frames --workers 1 2
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np

from aime.data import ClipSampler, Dataset, Episode, Shard, open_dataset, prefetch, write_shard
from aime.data.cache import FrameCache

EPISODE, SIZE = 500, 64


def make(place: Path, frames: int) -> None:
    """Write episodes that compress as DMC-VB's frames do on average, 1.7 times: smooth shapes that drift, and noise."""
    random = np.random.default_rng(0)
    for number in range(0, frames, 10 * EPISODE):
        episodes = [_episode(random) for _ in range(min(10, -(-(frames - number) // EPISODE)))]
        write_shard(place / f"{number // EPISODE:06d}.h5", episodes)


def _episode(random: np.random.Generator) -> Episode:
    coarse = random.integers(0, 256, (12, 12, 3)).astype(np.float32)
    wide = coarse.repeat(16, 0).repeat(16, 1)
    frames = np.empty((EPISODE, SIZE, SIZE, 3), np.uint8)
    for step in range(EPISODE):
        view = wide[step % 100 : step % 100 + SIZE, step // 5 : step // 5 + SIZE]
        frames[step] = np.clip(view + random.integers(-2, 3, view.shape), 0, 255)
    action = random.uniform(-1, 1, (EPISODE, 6)).astype(np.float32)
    return Episode(frames, action, np.zeros(EPISODE, np.float32), np.zeros(EPISODE, bool))


def measure(
    data: str, workers: int, length: int, batch: int, batches: int, by_hdf5: bool
) -> dict[str, float | str | int]:
    """Read so many batches, cold and then warm."""
    files = open_dataset(data).files
    opening = time.process_time()
    shards = [Shard(path) for path in files]
    opening = time.process_time() - opening
    if by_hdf5:
        for shard in shards:
            shard._pixels._blocks = None
    dataset = Dataset(shards, data, cache=FrameCache(0))
    sampler = ClipSampler(dataset, batch, length, 0)
    for path in files:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    cold, _ = _rates(sampler, workers, batches)
    warm, per_processor_second = _rates(sampler, workers, batches)
    return {
        "data": data,
        "workers": workers,
        "by_hdf5": by_hdf5,
        "milliseconds_to_open_a_shard": round(1000 * opening / len(shards), 2),
        "bytes_per_frame_on_disk": round(sum(path.stat().st_size for path in files) / dataset.frames),
        "frames_per_second_cold": round(cold),
        "frames_per_second_warm": round(warm),
        "frames_per_processor_second_warm": round(per_processor_second),
        "cores": len(os.sched_getaffinity(0)),
    }


def _rates(sampler: ClipSampler, workers: int, batches: int) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    frames = sum(clips.frames[..., 0, 0, 0].numel() for clips in prefetch(sampler, 0, batches, workers=workers))
    return frames / (time.perf_counter() - wall), frames / (time.process_time() - processor)


def main() -> None:
    """Make data, or measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="bundled:cartpole")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--by-hdf5", action="store_true", help="decode by HDF5, which does one thing at a time")
    parser.add_argument("--make", type=Path, help="a directory to fill with frames, in place of measuring")
    parser.add_argument("--frames", type=int, default=20_000)
    options = parser.parse_args()
    if options.make is not None:
        make(options.make, options.frames)
        return
    for workers in options.workers:
        print(
            json.dumps(measure(options.data, workers, options.length, options.batch, options.batches, options.by_hdf5))
        )


if __name__ == "__main__":
    main()
