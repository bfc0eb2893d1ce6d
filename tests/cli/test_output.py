"""Output that cannot be encoded, is closed, or has lost its reader ends nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

VERBS = """
import sys, types
from aime.cli import main as cli
def run(arguments):
    from rich.console import Console
    for _ in range(20000):
        print("… → ²")
    Console().print("[bold]… → ²")
    Console(stderr=True).print("… → ²")
    open(sys.argv[-1], "w").write("done")
    return 0
fake = types.ModuleType("aime.cli.fake")
fake.main = run
sys.modules["aime.cli.fake"] = fake
cli.VERBS["fake"] = "a verb"
cli.RUN_TO_THE_END += ("fake",)
cli.entry()
"""


def shell(command: str, result: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A shell's command in which AIME stands for the verb."""
    aime = f"'{sys.executable}' -c '{VERBS.replace(chr(39), chr(34))}' fake '{result}'"
    return subprocess.run(
        ["bash", "-c", command.replace("AIME", aime)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=100,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_what_cannot_be_encoded_is_replaced(tmp_path: Path, encoding: str) -> None:
    done = shell("AIME", tmp_path / "result", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("? ? ")
    assert (tmp_path / "result").read_text() == "done"


@pytest.mark.parametrize(
    "command", ["AIME >&-", "AIME >&- 2>&-", "AIME <&- >&- 2>&-", "AIME >/dev/full", "AIME 2>/dev/full >&2"]
)
def test_closed_and_full_output_ends_nothing(tmp_path: Path, command: str) -> None:
    done = shell(command, tmp_path / "result")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "result").read_text() == "done", "and nothing else was written into a file opened meanwhile"


def test_a_reader_who_goes_does_not_end_what_makes_files(tmp_path: Path) -> None:
    done = shell("AIME | head -n 1; exit ${PIPESTATUS[0]}", tmp_path / "result", PYTHONIOENCODING="utf-8")
    assert (done.returncode, done.stdout, done.stderr.strip()) == (0, "… → ²\n", "… → ²")
    assert (tmp_path / "result").read_text() == "done"


def test_output_that_is_the_result_says_when_it_cannot_be_written() -> None:
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m aime --help > /dev/full"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr == "aime: standard output cannot be written: No space left on device\n"
