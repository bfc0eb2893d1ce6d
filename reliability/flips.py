"""Single bit flips: in a checkpoint all are found, in a shard none changes a value without a word."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from reliability.cases import Bench, Case, drawing
from reliability.children import Ended, run
from reliability.digest import digest_command
from reliability.mutations import flip_bit


def checkpoint_cases(bench: Bench, count: int, seed: int) -> Iterator[Case]:
    """Every file of the checkpoint in turn; --resume and evaluate must refuse what they read."""
    for number in range(count):
        yield Case(f"checkpoint-{number}", _Checkpoint(bench, number, seed), {"flips": 1})


class _Checkpoint:
    def __init__(self, bench: Bench, number: int, seed: int) -> None:
        self._bench, self._number, self._seed = bench, number, seed

    def __call__(self, place: Path) -> list[str]:
        """Flip a bit in a copy of the run, and go on with it."""
        copy = place / "run"
        shutil.copytree(self._bench.run, copy)
        files = sorted(path for path in (copy / "checkpoint").iterdir() if path.is_file())
        path = files[self._number % len(files)]
        said = flip_bit(path, drawing(self._seed, f"checkpoint-{self._number}"))
        words = ["train", "--resume", "--out", copy, "--steps", "4"]
        faults = _unfound(self._bench.forker.run(words, place, place), f"{said}: --resume")
        if path.name == "ema.safetensors":
            words = ["evaluate", copy, "--data", self._bench.unseen, "--out", place / "e.json", "--clips", "1"]
            words += ["--context", "2", "--horizon", "2", "--samples", "1"]
            faults += _unfound(self._bench.forker.run(words, place, place), f"{said}: evaluate")
        return faults


def _unfound(ended: Ended, said: str) -> list[str]:
    if ended.status == 0:
        return [f"{said} takes it without a word"]
    return [f"{said}: {fault}" for fault in ended.faults((2,))]


def shard_cases(bench: Bench, count: int, seed: int) -> Iterator[Case]:
    """Bits anywhere in a shard, and as often in what is not pixels."""
    for number in range(count):
        yield Case(f"shard-{number}", _Shard(bench, number, seed), {"flips": 1})


class _Shard:
    def __init__(self, bench: Bench, number: int, seed: int) -> None:
        self._bench, self._number, self._seed = bench, number, seed

    def __call__(self, place: Path) -> list[str]:
        """Flip a bit in a copy of the shard; a reader refuses it or finds every value as it was."""
        copy = place / "data"
        shutil.copytree(self._bench.shards, copy)
        said = flip_bit(next(copy.glob("*.h5")), drawing(self._seed, f"shard-{self._number}"))
        found = run(digest_command(copy), place)
        if found.status == 0:
            return [] if found.out == self._bench.digest else [f"{said}: other values without a word"]
        return [f"{said}: {fault}" for fault in found.faults()]
