"""The log has one line per logged step, without duplicates, and the display shows the progress."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from aime.errors import AimeError
from aime.runs.display import Status, format_duration, format_figure, pace
from aime.runs.logbook import Logbook
from aime.runs.schedule import Budget, Progress

STEPS = Budget(steps=100, minutes=None)


def _progress(step: int) -> Progress:
    return Progress(step, 256 * step, 0.5 * step)


def _plain() -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=False, width=60), stream


def _terminal() -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=True, width=100, height=30, _environ={"TERM": "xterm"}), stream


def _read(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _scalars(run: Path, name: str) -> dict[int, float]:
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    return {event.step: event.value for event in events.Scalars(name)}


def test_of_several_ranks_the_first_alone_touches_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = tmp_path / "dynamics_finetuning.jsonl"
    written.write_text("what rank 0 has written\n")
    monkeypatch.setattr("aime.runs.logbook.rank", lambda: 1)
    with Logbook(tmp_path, STEPS) as logbook:
        logbook.begin("dynamics_finetuning", Progress(3), {})
        logbook.log("dynamics_finetuning", Progress(3, phase_step=1), {"dynamics_finetuning/one_step_latent": 3.0})
    assert written.read_text() == "what rank 0 has written\n"


def test_a_line_a_logged_step(tmp_path: Path) -> None:
    with Logbook(tmp_path, STEPS, console=_plain()[0]) as logbook:
        logbook.log("joint", _progress(1), {"loss": 3.5, "elbo/kl_z": 0.25})
        for step in range(2, 10):
            logbook.tick(_progress(step))
        logbook.log("joint", Progress(10, 2560, 2.75), {"loss": 2.5, "elbo/kl_z": 0.5})
        assert len(_read(tmp_path)) == 2  # complete at every moment, not only once closed
    first, second = _read(tmp_path)
    assert first == {
        "step": 1, "seconds": 0.5, "frames": 256, "frames_per_second": 512.0, "loss": 3.5, "elbo/kl_z": 0.25
    }  # fmt: skip
    assert second["frames_per_second"] == round((2560 - 256) / (2.75 - 0.5), 1)
    assert _scalars(tmp_path, "elbo/kl_z") == {1: 0.25, 10: 0.5}
    assert _scalars(tmp_path, "loss") == {1: 3.5, 10: 2.5}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_not_finite_is_null(tmp_path: Path, value: float) -> None:
    with Logbook(tmp_path, STEPS, console=_plain()[0]) as logbook:
        logbook.log("joint", _progress(1), {"loss": value, "other": 1.0})
        logbook.log("joint", Progress(2, 512, 0.5), {"loss": 1.0, "other": 1.0})  # no time passed: the pace is unknown

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    first, second = (json.loads(line, parse_constant=refuse) for line in lines)
    assert first["loss"] is None
    assert first["other"] == 1.0
    assert second["frames_per_second"] is None
    assert _scalars(tmp_path, "loss") == {2: 1.0}


def test_resuming_neither_restarts_nor_doubles_the_log(tmp_path: Path) -> None:
    with Logbook(tmp_path, STEPS, console=_plain()[0]) as logbook:
        for step in range(1, 8):
            logbook.log("joint", _progress(step), {"loss": float(step)})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 8, "los')  # a kill cuts a line short
    with Logbook(tmp_path, STEPS, console=_plain()[0]) as logbook:
        logbook.begin("joint", _progress(4), {})
        assert [line["step"] for line in _read(tmp_path)] == [1, 2, 3, 4]
        for step in range(5, 10):  # at half the pace
            logbook.log("joint", Progress(step, 256 * step, 2.0 + 1.0 * (step - 4)), {"loss": 10.0 * step})
    lines = _read(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 10))
    assert [line["loss"] for line in lines] == [1.0, 2.0, 3.0, 4.0, 50.0, 60.0, 70.0, 80.0, 90.0]
    assert [line["frames_per_second"] for line in lines] == [512.0] * 4 + [256.0] * 5
    assert _scalars(tmp_path, "loss") == {line["step"]: line["loss"] for line in lines}


def test_tensorboard_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    with Logbook(tmp_path, STEPS, console=_plain()[0]) as logbook:
        for step in range(1, 8):
            logbook.log("joint", _progress(step), {"loss": float(step)})
    with Logbook(tmp_path, STEPS, console=_plain()[0]) as logbook:
        logbook.begin("joint", _progress(4), {})
        logbook.log("joint", _progress(9), {"loss": 9.0})
    assert _scalars(tmp_path, "loss") == {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0, 9: 9.0}


def test_a_fresh_run_does_not_append_to_an_old_log(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 5}\nnot json\n[1]\n{"step": null}\n')
    with Logbook(tmp_path, STEPS, console=_plain()[0]) as logbook:
        logbook.begin("joint", Progress(), {})
        logbook.log("joint", _progress(1), {"loss": 1.0})
    assert [line["step"] for line in _read(tmp_path)] == [1]


def test_each_phase_has_a_log_of_its_own_steps(tmp_path: Path) -> None:
    with Logbook(tmp_path, STEPS, console=_plain()[0]) as logbook:
        logbook.log("joint", _progress(4), {"loss": 1.0})
        for step in (1, 2, 3):
            at = _progress(4)._replace(phase="dynamics_finetuning", phase_step=step, seconds=2.0 + step)
            logbook.log("dynamics_finetuning", at, {"dynamics_finetuning/entropy": float(step)})
        logbook.begin("dynamics_finetuning", at._replace(phase_step=2), {})
    lines = (tmp_path / "dynamics_finetuning.jsonl").read_text().splitlines()
    expected = [{"step": step, "seconds": 2.0 + step, "dynamics_finetuning/entropy": float(step)} for step in (1, 2)]
    assert [json.loads(line) for line in lines] == expected
    assert [line["step"] for line in _read(tmp_path)] == [4]


def test_a_filmstrip_goes_to_tensorboard_as_it_is(tmp_path: Path) -> None:
    strip = np.random.default_rng(0).integers(0, 256, (8, 24, 3), dtype=np.uint8)
    with Logbook(tmp_path, STEPS, console=_plain()[0]) as logbook:
        logbook.add_image(7, "dream", strip)
    (event,) = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Images("dream")
    from PIL import Image

    assert event.step == 7
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(event.encoded_image_string))), strip)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        pytest.raises(AimeError, match=r"metrics.jsonl: cannot be written: No space left .*; free some space"),
        Logbook(tmp_path, STEPS, console=_plain()[0]) as logbook,
    ):
        monkeypatch.setattr("builtins.open", full)
        logbook.log("joint", _progress(1), {"loss": 1.0})


def test_without_a_terminal_it_prints_few_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    console, stream = _plain()
    run = tmp_path / ("long-name" * 10)  # wider than the console: a line must not be wrapped
    run.mkdir()
    with Logbook(run, STEPS, console=console) as logbook:
        assert stream.getvalue().splitlines() == ["preparing …"]
        logbook.show_activity("unpacking data [cartpole]")
        logbook.show_activity("first step")
        for step in range(1, 41):
            if step in (1, 10):
                logbook.log("joint", _progress(step), {"loss": 1234.5})
            logbook.tick(_progress(step))
            now += 1.0
    lines = stream.getvalue().splitlines()
    assert lines[1:3] == ["unpacking data [cartpole] …", "first step …"]
    assert lines[3] == "1% · step 1 of 100 · 512 frames/s · 0:50 left · loss 1234"
    assert [line.split(" · ")[1] for line in lines[3:-1]] == ["step 1 of 100", "step 16 of 100", "step 31 of 100"]
    assert lines[-1] == f"{run}: 40 steps, 10240 frames in 0:20"
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_shows_a_panel_from_the_start_to_the_end(tmp_path: Path) -> None:
    console, stream = _terminal()
    with Logbook(tmp_path, STEPS, console=console) as logbook:
        assert "preparing …" in stream.getvalue()
        logbook.show_activity("first step")
        assert "first step …" in stream.getvalue()
        logbook.log(
            "joint", _progress(25), {"loss": 12.5, "elbo/kl_z": 0.125, "effective_components": 3.25, "x[bold]": 1.0}
        )
        logbook.tick(_progress(25))
    last = stream.getvalue().rpartition("aime train")[2]
    for text in ("25%", "step 25 of 100", "512 frames/s", "0:38 left", "loss", "12.50", "elbo/kl_z", "0.1250",
                 "effective_components", "3.250", "x[bold]", "training", "25 steps, 6400 frames"):  # fmt: skip
        assert text in last, text
    assert "…" not in last


def test_an_error_ends_the_display_without_a_closing_line(tmp_path: Path) -> None:
    console, stream = _plain()
    with pytest.raises(KeyError), Logbook(tmp_path, STEPS, console=console):
        raise KeyError
    assert stream.getvalue().splitlines() == ["preparing …"]
    assert not (tmp_path / "tensorboard").exists()


def test_time_left_counts_this_session_only(tmp_path: Path) -> None:
    status = Status(tmp_path, STEPS)
    assert status.seconds_left is None
    status.started = Progress(50, 0, 500.0)
    status.progress = Progress(60, 0, 520.0)
    assert status.seconds_left == pytest.approx(40 * 2.0)
    status.progress = Progress(120, 0, 640.0)
    assert status.seconds_left == 0


def test_a_run_by_the_clock(tmp_path: Path) -> None:
    status = Status(tmp_path, Budget(steps=None, minutes=5), progress=Progress(30, 100, 75.0))
    assert status.seconds_left == 225
    assert pace(status) == "25% · 1.2 of 5 minutes, step 30 · 3:45 left"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0000"), (0.12345, "0.1235"), (-1.5, "-1.500"), (12345.6, "12346"), (1e-5, "1.000e-05"),
     (3e8, "3.000e+08"), (math.nan, "nan")],
)  # fmt: skip
def test_figures_have_four_digits(value: float, text: str) -> None:
    assert format_figure(value) == text


def test_durations() -> None:
    durations = {0: "0:00", 59.6: "1:00", 61: "1:01", 3600: "1:00:00", 7325: "2:02:05"}
    assert {each: format_duration(each) for each in durations} == durations
