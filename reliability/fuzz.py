"""Random mutations of small valid files of every format: an answer in one line, in time and memory, nothing outside."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from reliability.cases import Bench, Case, drawing
from reliability.examples import FORMATS
from reliability.mutations import mutate
from reliability.tiny_run import unseal

RUN_COMMANDS = {
    "run-evaluate": "evaluate {source} --data {data} --out {out}/e.json --context 2 --horizon 2 --samples 1 --clips 1",
    "run-resume": "train --resume --out {source} --steps 4",
    "run-report": "report {source} --data {data} --out {out}/report.html --context 2 --horizon 2",
}
"""What reads a run; {data} is a shard that it was not trained on."""


def cases(bench: Bench, count: int, seed: int) -> Iterator[Case]:
    """As many of every format, one after the other."""
    names = [*FORMATS, *RUN_COMMANDS]
    for number in range(count):
        kind = names[number % len(names)]
        yield _case(bench, kind, f"{kind}-{number // len(names)}", seed)


def _case(bench: Bench, kind: str, name: str, seed: int) -> Case:
    def run(place: Path) -> list[str]:
        draw = drawing(seed, name)
        source, out = place / "source", place / "out"
        shutil.copytree(bench.run if kind in RUN_COMMANDS else bench.source(kind), source)
        if kind in RUN_COMMANDS and draw.random() < 0.6:
            unseal(source)
        paths = sorted(path for path in source.rglob("*") if path.is_file() and "tensorboard" not in path.parts)
        changed = [draw.choice(paths) for _ in range(draw.choice((1, 1, 1, 2)))]
        said = [f"{mutate(path, draw)} {path.relative_to(source)}" for path in changed]
        filled = filled_command(bench, kind, source, out)
        ended = bench.forker.run(filled, place, place)
        return [f"{' and '.join(said)}: {fault}" for fault in ended.faults()]

    return Case(name, run)


def command(bench: Bench, kind: str, place: Path) -> list[str]:
    """The command that reads a valid source of a kind, copied into a directory."""
    shutil.copytree(bench.run if kind in RUN_COMMANDS else bench.source(kind), place / "source")
    return filled_command(bench, kind, place / "source", place / "out")


def filled_command(bench: Bench, kind: str, source: Path, out: Path) -> list[str]:
    """The command that reads a source of a kind; makes the output directory where the command wants one."""
    if kind in RUN_COMMANDS or kind == "shard":
        out.mkdir()
    words = (RUN_COMMANDS[kind] if kind in RUN_COMMANDS else FORMATS[kind].command).split()
    return [word.format(source=source, out=out, data=bench.unseen) for word in words]
