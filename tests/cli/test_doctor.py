from __future__ import annotations

from collections import namedtuple
from importlib.metadata import PackageNotFoundError

import pytest

from aime.cli import doctor
from aime.io.collect import environment

PROBLEM = "dm_control cannot render (MUJOCO_GL=egl: AttributeError: glGetError); run `apt-get install libegl1`"

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def no_gl_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "rendering_problem", lambda: PROBLEM)


def findings() -> dict[str, doctor.Finding]:
    return {finding.part: finding for finding in doctor.examine()}


def test_everything_is_looked_at_and_the_exit_status_is_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert doctor.main([]) == 0
    printed = capsys.readouterr().out
    for part in (
        "Python",
        "torch",
        "cores",
        "memory",
        "bf16",
        "CUDA",
        "dm_control",
        "bundled:cartpole",
        "WebP",
        "disk",
    ):
        assert part in printed
    assert "apt-get install libegl1" in printed


def test_what_fails_has_its_remedy() -> None:
    finding = findings()["rendering"]
    assert "glGetError" in finding.found
    assert finding.remedy == "to record, run `apt-get install libegl1`" and finding.optional


def test_what_works_needs_no_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "rendering_problem", lambda: None)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert findings()["rendering"] == doctor.Finding("rendering", "works with MUJOCO_GL=osmesa")


def test_a_check_that_fails_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError("no\nsuch thing")

    monkeypatch.setattr(environment, "rendering_problem", broken)
    found = findings()
    assert found["rendering"].found == "OSError: no such thing" and found["rendering"].remedy
    assert "disk" in found


@pytest.mark.parametrize(("mujoco", "fits"), [("3.3.1", True), ("4.0.0", False)])
def test_mujoco_is_bounded(monkeypatch: pytest.MonkeyPatch, mujoco: str, fits: bool) -> None:
    monkeypatch.setattr(doctor, "version", lambda name: mujoco if name == "mujoco" else "1.0.50")
    finding = findings()["dm_control"]
    assert finding.found == f"1.0.50 with mujoco {mujoco}"
    assert (finding.remedy == "") == fits and (fits or "mujoco<4" in finding.remedy)


def test_a_missing_dm_control_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", version)
    finding = findings()["dm_control"]
    assert "pip install 'aime[dmc]'" in finding.remedy and finding.optional


def test_a_full_disk_is_no_small_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: Usage(10**12, 10**12 - 10**6, 10**6))
    finding = findings()["disk"]
    assert finding.remedy == "free some space" and not finding.optional
    assert "!" in finding.mark
