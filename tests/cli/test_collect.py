from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from aime.cli import collect as command
from aime.errors import AimeError
from aime.io.collect.recording import Recording


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    """Stands for the recording itself, and for dm_control's list of tasks; holds what was to be recorded."""
    recordings: list[Recording] = []

    def collect(asked: Sequence[Recording], out: Path, episodes: int, workers: int, **rest: Any) -> int:
        recordings.extend(asked)
        return 100 * episodes * len(asked)

    def split_name(name: str) -> tuple[str, str]:
        domain, _, task = name.removeprefix("dmc:").partition("_")
        return domain, task

    monkeypatch.setattr(command, "collect", collect)
    monkeypatch.setattr(command, "split_name", split_name)
    return recordings


def test_the_defaults_of_an_environment(
    tmp_path: Path, recorded: list[Recording], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["dmc:cartpole_swingup", "dmc:quadruped_walk", "--out", str(tmp_path)]) == 0
    cartpole, quadruped = recorded
    assert (cartpole.action_repeat, cartpole.camera, cartpole.image_size) == (4, 0, 64)
    assert (quadruped.action_repeat, quadruped.camera) == (2, 2)
    assert (cartpole.policy, cartpole.distractor, cartpole.seed, cartpole.length) == ("random", "none", 0, 100)
    assert cartpole.masks and quadruped.masks
    out, errors = capsys.readouterr()
    assert f"{tmp_path}/cartpole_swingup: 100 episodes" in out
    assert "shadow off, reflection off" in " ".join(errors.split())


def test_settings_are_taken_from_the_flags(tmp_path: Path, recorded: list[Recording]) -> None:
    flags = "--length 7 --policy smooth --seed 3 --distractor dynamic --action-repeat 8 --image-size 32 --camera 1 "
    flags += "--no-masks"
    assert command.main(["dmc:cartpole_swingup", "--out", str(tmp_path), *flags.split()]) == 0
    assert recorded == [Recording("cartpole", "swingup", 7, "smooth", 3, "dynamic", 8, 32, 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "no environment is named"),
        ("dmc:a_b dmc:a_b", "named twice"),
        ("dmc:a_b --episodes 0", "--episodes is 0, expected 1 to"),
        ("dmc:a_b --length 1", "--length is 1, expected 2 to"),
        ("dmc:a_b --seed -1", "--seed is -1, expected 0 to"),
        ("dmc:a_b --workers 0", "--workers is 0, expected 1 to"),
        ("dmc:a_b --image-size 4", "--image-size is 4, expected 8 to"),
        ("dmc:a_b --policy clever", "'clever'.*random"),
        ("dmc:a_b --polcy smooth", "no flag --polcy; did you mean --policy"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(
    tmp_path: Path, recorded: list[Recording], arguments: str, message: str
) -> None:
    with pytest.raises(AimeError, match=message) as refusal:
        command.main([*arguments.split(), "--out", str(tmp_path / "out")])
    assert "\n" not in str(refusal.value) and recorded == []


def test_an_interruption_says_how_to_go_on(
    tmp_path: Path, recorded: list[Recording], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: Any, **rest: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "collect", interrupted)
    assert command.main(["dmc:cartpole_swingup", "--out", str(tmp_path)]) == 130
    assert "run the same command to continue" in capsys.readouterr().err
