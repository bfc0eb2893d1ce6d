"""Try what AIME promises under kills, faults and hostile files, and print a table.

    python -m reliability.run                                     a seeded sample, about 20 minutes on two cores
    python -m reliability.run --count full                        the counts of docs/reliability.md
    python -m reliability.run --only hostile --case postscript    one case

Rows are kept in OUT/rows.jsonl as they finish; the same command goes on after an interruption.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from reliability import flips, fuzz, hostile, kills, ranks, shortages, signals, writers
from reliability.cases import Bench, Case, Part, Untriable
from reliability.rows import Row, Rows, replace_table, table

PARTS = {
    "kills": Part("SIGKILL of collect, import, train and agents, then the same command", kills.cases, 100, 16),
    "signals": Part("SIGINT, SIGTERM, SIGHUP in a training", signals.cases, 30, 10),
    "ranks": Part("one of two ranks killed or frozen", ranks.cases, 8, 2),
    "shortages": Part("full disk, no right to write, limits on files and memory", shortages.cases, 25, 12),
    "writers": Part("two writers of a run, readers while it saves", writers.cases, 12, 4),
    "flips-checkpoint": Part("one bit flipped in a checkpoint", flips.checkpoint_cases, 50, 20),
    "flips-shard": Part("one bit flipped in a shard", flips.shard_cases, 50, 20),
    "hostile": Part("hostile files", hostile.cases, 64, 64),
    "fuzz": Part("random mutations of files of every format", fuzz.cases, 400, 130),
}


@dataclass(frozen=True)
class Campaign:
    """What to try, and where.

    Attributes:
        only: parts; all by default.
        case: one case of the one part that --only names.
        count: the full counts or a sample.
        share: of those counts, for a quick look.
        seed: another seed tries other kills, flips and mutations.
        out: for the rows and everything that is made.
        again: run cases again that OUT/rows.jsonl holds already.
        keep: leave what a failed case made in OUT/cases.
        document: also write the table into this file, between its two marks.
    """

    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PART …")] = ()
    case: str | None = None
    count: Literal["sample", "full"] = "sample"
    share: float = 1.0
    seed: int = 0
    out: Path = Path("runs/reliability")
    again: bool = False
    keep: bool = False
    document: Path | None = None


def main(campaign: Campaign) -> int:
    """Run it; 1 where a promise is broken, or a part cannot be tried here."""
    unknown = [name for name in campaign.only if name not in PARTS]
    if unknown:
        print(f"there is no part {unknown[0]}; expected some of {', '.join(PARTS)}", file=sys.stderr)
        return 2
    chosen = {name: part for name, part in PARTS.items() if not campaign.only or name in campaign.only}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored, and the children would inherit that
    rows, bench = Rows(campaign.out / "rows.jsonl"), Bench(campaign.out / "cases")
    missing = 0
    try:
        for name, part in chosen.items():
            try:
                for case in _cases(campaign, part, bench):
                    if campaign.again or campaign.case or not rows.has(name, case.name, campaign.seed):
                        rows.add(_tried(campaign, bench, name, case))
            except Untriable as error:
                missing += 1
                print(f"{name} · not tried: {error}", file=sys.stderr)
    finally:
        bench.close()
    mine = [row for row in rows.latest() if row.seed == campaign.seed and row.part in chosen]
    found = table(
        mine, {name: part.title for name, part in chosen.items()}, {name: part.full for name, part in chosen.items()}
    )
    print(f"\n{found}")
    if campaign.document is not None:
        partial = (
            " Where a count is less than all, the rest has not been tried." if re.search(r"\d of \d", found) else ""
        )
        replace_table(campaign.document, f"{_origin(campaign, mine)}{partial}\n\n{found}")
    return 1 if missing or any(row.faults for row in mine) else 0


def _origin(campaign: Campaign, rows: list[Row]) -> str:
    """Where the table comes from, for whoever reads it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "a CPU")
    seed = f" SEED={campaign.seed}" if campaign.seed else ""
    return (
        f"Measured on {time.strftime('%d %B %Y')} by `COUNT={campaign.count}{seed} make reliability`, seed "
        f"{campaign.seed}, on {os.cpu_count()} cores ({model}), Python {platform.python_version()}, at commit "
        f"{' and '.join(dict.fromkeys(row.commit for row in rows))}."
    )


@functools.cache
def _commit() -> str:
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"


def _cases(campaign: Campaign, part: Part, bench: Bench) -> Iterator[Case]:
    count = part.full if campaign.count == "full" or campaign.case else part.sample
    for case in part.cases(bench, max(1, round(count * campaign.share)), campaign.seed):
        if campaign.case in (None, case.name):
            yield case


def _tried(campaign: Campaign, bench: Bench, part: str, case: Case) -> Row:
    place, started = bench.fresh(f"{part}/{case.name}"), time.monotonic()
    try:
        faults = case.run(place)
    except (OSError, ValueError, RuntimeError, KeyError) as error:  # the campaign goes on without the case
        faults = [f"the test itself failed: {type(error).__name__}: {error}"]
    if not (faults and campaign.keep):
        shutil.rmtree(place, ignore_errors=True)
    seed = f" --seed {campaign.seed}" if campaign.seed else ""
    repeat = f"python -m reliability.run --only {part} --case {case.name}{seed} --keep"
    return Row(
        part, case.name, campaign.seed, tuple(faults), time.monotonic() - started, repeat, case.counts, _commit()
    )


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Campaign, description=__doc__)))
