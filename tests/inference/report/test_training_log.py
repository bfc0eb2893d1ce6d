"""Reading what training logged, whole or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from aime.errors import AimeError
from aime.inference.report.training_log import names, read_log, series


def write(run: Path, text: str) -> Path:
    (run / "metrics.jsonl").write_text(text, encoding="utf-8")
    return run


def test_no_log_is_an_empty_log(tmp_path: Path) -> None:
    assert read_log(tmp_path) == []


def test_figures_come_by_name_where_they_were_logged(tmp_path: Path) -> None:
    records = read_log(write(tmp_path, '{"step": 1, "loss": 3}\n{"step": 2, "loss": 2.5, "kl": 1, "note": "x"}\n'))
    assert series(records, "loss") == ([1, 2], [3, 2.5])
    assert series(records, "kl") == ([2], [1])
    assert names(records) == ["step", "loss", "kl"]


def test_steps_made_again_after_a_kill_replace_the_first_ones(tmp_path: Path) -> None:
    lines = [f'{{"step": {step}, "loss": {loss}}}' for step, loss in [(1, 9), (2, 8), (3, 7), (2, 6), (4, 5)]]
    assert series(read_log(write(tmp_path, "\n".join(lines))), "loss") == ([1, 2, 4], [9, 6, 5])


def test_a_last_line_cut_short_is_dropped(tmp_path: Path) -> None:
    assert len(read_log(write(tmp_path, '{"step": 1, "loss": 3}\n{"step": 2, "lo'))) == 1


@pytest.mark.parametrize("line", ["{", "[1]", '{"loss": 1}', '{"step": "one"}'])
def test_another_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    run = write(tmp_path, f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(AimeError, match=r"metrics.jsonl: line 2: found .*, expected a JSON object with a step"):
        read_log(run)
