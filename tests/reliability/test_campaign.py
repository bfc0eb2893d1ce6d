"""Two minutes of `make reliability`: some mutations, flips, hostile files and kills, by the campaign's own cases."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from reliability import flips, fuzz
from reliability.cases import Bench, Case, drawing
from reliability.examples import FORMATS
from reliability.hostile import cases as hostile_cases
from reliability.kills import Chain
from reliability.tracing import can_trace

pytest.importorskip("av", reason="films need PyAV: pip install 'aime[import]'")
pytest.importorskip("pyarrow", reason="tables need pyarrow: pip install 'aime[import]'")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are watched by /proc")

FORMATS_AND_RUNS = [*FORMATS, *fuzz.RUN_COMMANDS]
HOSTILE = (
    *("postscript", "sdp", "fifo-film", "shard-external-link", "npz-pickled", "lerobot-outside", "weights-pickled"),
    "name-escapes",
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("reliability"))
    yield bench
    bench.close()


def named(cases: Iterator[Case], name: str) -> Case:
    return next(case for case in cases if case.name == name)


@pytest.mark.parametrize("kind", FORMATS_AND_RUNS)
def test_valid_files_are_read(bench: Bench, kind: str) -> None:
    place = bench.fresh(f"valid-{kind}")
    ended = bench.forker.run(fuzz.command(bench, kind, place), place, place)
    assert ended.faults((0,)) == []


@pytest.mark.parametrize("kind", FORMATS_AND_RUNS)
def test_mutations_are_answered_in_one_line(bench: Bench, kind: str) -> None:
    for number in range(2):
        name = f"{kind}-{number}"
        case = named(fuzz.cases(bench, 400, 0), name)
        assert case.run(bench.fresh(name)) == []


@pytest.mark.parametrize("number", (0, 4, 8))
def test_a_flipped_bit_of_a_checkpoint_is_found(bench: Bench, number: int) -> None:
    case = named(flips.checkpoint_cases(bench, 50, 0), f"checkpoint-{number}")
    assert case.run(bench.fresh(case.name)) == []


@pytest.mark.parametrize("number", range(3))
def test_a_flipped_bit_of_a_shard_changes_no_value(bench: Bench, number: int) -> None:
    case = named(flips.shard_cases(bench, 50, 0), f"shard-{number}")
    assert case.run(bench.fresh(case.name)) == []


@pytest.mark.skipif(not can_trace(), reason="needs strace, and the right to trace")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_start_and_open_nothing(bench: Bench, name: str) -> None:
    case = named(hostile_cases(bench, 400, 0), name)
    assert case.run(bench.fresh(name)) == []


def test_a_killed_training_ends_with_the_same_bytes(bench: Bench) -> None:
    counts = {"kills": 0}
    assert Chain(bench, "train", drawing(0, "suite"), counts, kills=1)(bench.fresh("kill")) == []
    assert counts == {"kills": 1}


def test_the_page_has_a_place_for_the_table() -> None:
    from reliability.rows import BEGIN, END

    text = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert text.index(BEGIN) < text.index(END)
