"""Commands that take some seconds, can be killed at any moment, and must end with the same bytes all the same."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reliability.cases import Bench
from reliability.children import aime, run
from reliability.digest import digest_command
from reliability.encoding import frames_of, write_csv, write_film
from reliability.tiny_run import resume_command, train_command

STEPS = 8


@dataclass(frozen=True)
class Workload:
    """A command, and how to go on with it.

    Attributes:
        prepare: what must be there first: (bench, place).
        start: the command: (bench, place).
        go_on: the command after a kill.
        out: the directory that it fills, below the place.
        begun: a path below `out` that shows that start has to be followed by `go_on`.
        by_value: compare the values of the data set in `out`, not its files.
    """

    prepare: Callable[[Bench, Path], None]
    start: Callable[[Bench, Path], list[str]]
    go_on: Callable[[Bench, Path], list[str]]
    out: str
    begun: str
    by_value: bool = False

    def result(self, place: Path) -> dict[str, str]:
        """What must be the same after a kill, by name."""
        if not self.by_value:
            return outcome(place / self.out)
        read = run(digest_command(place / self.out), place)
        return {"the data set": read.out or read.err}


def nothing(bench: Bench, place: Path) -> None:
    """There is nothing to prepare."""


def _collect(bench: Bench, place: Path) -> list[str]:
    # shards hold 20 episodes at most: a kill finds some done and some not
    words = "--episodes 50 --length 40 --image-size 32 --workers 2 --seed 1"
    return aime("collect", "dmc:cartpole_swingup", "--out", place / "out", *words.split())


def _films(bench: Bench, place: Path) -> None:
    """Films of several jobs of an import, made once: the import's plan depends on their paths."""
    valid = _films_of(bench)
    if not (valid / "made").exists():
        shutil.rmtree(valid, ignore_errors=True)
        valid.mkdir(parents=True)
        random = np.random.default_rng(0)
        for number in range(8):
            frames = np.repeat(np.repeat(frames_of(60, 64, number), 8, axis=1), 8, axis=2)
            write_film(valid / f"{number}.mp4", frames)
            rows = {f"action_{k}": random.uniform(-2, 2, 60).round(4).tolist() for k in range(2)}
            write_csv(valid / f"{number}.csv", rows)
        (valid / "made").touch()


def _films_of(bench: Bench) -> Path:
    return bench.place / "valid" / "large-films"


def _import(bench: Bench, place: Path) -> list[str]:
    return aime("import", "folder", _films_of(bench), "--out", place / "out", "--workers", "2")


def _train(bench: Bench, place: Path) -> list[str]:
    return train_command(bench.shards, place / "out", STEPS)


def _resume(bench: Bench, place: Path) -> list[str]:
    return resume_command(place / "out", STEPS)


def _copied_run(bench: Bench, place: Path) -> None:
    shutil.copytree(bench.run, place / "run")


def _imitate(bench: Bench, place: Path) -> list[str]:
    return aime("agent", "imitate", place / "run", "--imitation.steps", "150", "--seed", "1")


def _imagine(bench: Bench, place: Path) -> list[str]:
    words = "--learning.steps 6 --learning.starts 8 --learning.horizon 2 --learning.warm-start.critic-steps 40"
    return aime("agent", "imagine", place / "run", *words.split(), "--learning.warm-start.policy-steps", "40")


WORKLOADS = {
    "train": Workload(nothing, _train, _resume, "out", "config.yaml"),
    # which episodes share a shard depends on those that were missing
    "collect": Workload(nothing, _collect, _collect, "out", "", by_value=True),
    "import": Workload(_films, _import, _import, "out", ""),
    "imitate": Workload(_copied_run, _imitate, _imitate, "run", ""),
    "imagine": Workload(_copied_run, _imagine, _imagine, "run", ""),
}

_CLOCK = ("seconds", "frames_per_second", "time", "date", "started", "finished", "created", "host", "pid", "wall")
"""Words of names whose values depend on the clock or on the process."""


def outcome(directory: Path) -> dict[str, str]:
    """Every file of a finished command and a digest of what it holds, without what depends on the clock.

    The sums of a checkpoint are left out: its `state.json` holds times. Each command that goes on compares them.
    """
    found = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if not path.is_file() or "tensorboard" in path.parts or path.name == "SHA256SUMS" or path.suffix == ".lock":
            continue
        content = path.read_bytes()
        if path.suffix in (".json", ".jsonl"):
            content = json.dumps([_timeless(json.loads(line)) for line in _documents(path)]).encode()
        if path.suffix == ".yaml":
            # a run that went on notes that it did, and a comment holds the digest of that
            lines = content.decode().splitlines()
            content = "\n".join(
                line for line in lines if not line.strip().startswith(("resume:", "out:", "#"))
            ).encode()
        found[name] = hashlib.sha256(content.replace(str(directory).encode(), b"")).hexdigest()
    return found


def _documents(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return text.splitlines() if path.suffix == ".jsonl" else [text]


def _timeless(node: Any) -> Any:
    """A JSON document without its times, and without the digests of files that hold times."""
    if isinstance(node, dict):
        kept = {name: value for name, value in node.items() if not any(word in name for word in _CLOCK)}
        return {name: _timeless(value) for name, value in kept.items()}
    return [_timeless(each) for each in node] if isinstance(node, list) else node
