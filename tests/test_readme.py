"""The Python examples of README and guide run in an empty directory with a run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aime.cli.main import main

ROOT = Path(__file__).parents[1]


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with runs/demo and runs/mine, one step old."""
    place = tmp_path_factory.mktemp("workplace")
    flags = "--steps 1 --batch 1 --length 4 --overshoot.steps 2 --device cpu --precision fp32"
    assert (
        main(["train", "tiny", "--data", "bundled:cartpole", "--out", str(place / "runs" / "demo"), *flags.split()])
        == 0
    )
    quick = "--learning.steps 1 --learning.starts 4 --learning.horizon 2 --learning.frames 100"
    quick += " --learning.warm-start.critic-steps 3 --learning.warm-start.policy-steps 3"
    assert main(["agent", "imagine", str(place / "runs" / "demo"), *quick.split()]) == 0
    (place / "runs" / "mine").symlink_to(place / "runs" / "demo")
    return place


@pytest.mark.parametrize(("page", "count"), [("README.md", 1), ("docs/guide.md", 2), ("docs/agents.md", 1)])
def test_examples_run_as_they_stand(page: str, count: int, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    blocks = python_blocks(page)
    assert len(blocks) == count
    for block in blocks:
        exec(compile(block, page, "exec"), {"__name__": page})


def test_the_example_has_about_ten_lines() -> None:
    [block] = python_blocks("README.md")
    assert len([line for line in block.splitlines() if line.strip()]) <= 10


def test_every_verb_is_in_the_table() -> None:
    from aime.cli.main import VERBS

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [verb for verb in VERBS if f"| `aime {verb}" not in text] == []
