"""Untrained runs for the tests of everything that looks at one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.inference.runs import AttentionKind, MakeRun, Run, write_run


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """`make_run(size=32, action_width=2, length=20, kind="schema")`: a run and its data in new directories."""
    made: list[Run] = []

    def make(size: int = 32, action_width: int = 2, length: int = 20, kind: AttentionKind = "schema") -> Run:
        made.append(write_run(tmp_path / f"world-{len(made)}", size, action_width, length, kind))
        return made[-1]

    return make
