"""The verbs that look at a run, from words on the line to files on disk, over a run of two steps."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import synthetic_episode

from aime.cli.main import main
from aime.data import Episode, write_shard

SIZE = 32


def drifting_episode(length: int, seed: int) -> Episode:
    generator = np.random.default_rng(seed)
    action = generator.uniform(-1, 1, (length, 2)).astype(np.float32)
    pixels = np.full((length, SIZE, SIZE, 3), 40, np.uint8)
    for step, column in enumerate(np.cumsum(action[:, 0]).astype(int) % SIZE):
        pixels[step, 8:16, column] = 220
    zeros = np.zeros(length, np.float32)
    return Episode(pixels, action, zeros, np.zeros(length, bool))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `data` and, trained on it, `run`."""
    place = tmp_path_factory.mktemp("commands")
    write_shard(place / "data" / "0.h5", [drifting_episode(20, seed) for seed in range(4)])
    flags = "--steps 2 --batch 2 --length 6 --overshoot.steps 3 --device cpu --precision fp32"
    arguments = ["train", "tiny", "--data", str(place / "data"), "--out", str(place / "run"), *flags.split()]
    assert main(arguments) == 0
    return place


def test_training_leaves_a_whole_run(place: Path) -> None:
    lines = (place / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert math.isfinite(json.loads(lines[-1])["loss"])
    assert (place / "run" / "config.yaml").is_file()
    assert {path.name for path in (place / "run" / "checkpoint").iterdir()} >= {"ema.safetensors", "state.json"}


def test_a_run_is_not_overwritten(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (place / "run" / "checkpoint" / "state.json").read_bytes()
    arguments = ["train", "tiny", "--data", str(place / "data"), "--out", str(place / "run"), "--steps", "1"]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert str(place / "run") in message
    assert "--resume" in message
    assert message.count("\n") == 1
    assert (place / "run" / "checkpoint" / "state.json").read_bytes() == before


def test_resuming_goes_on(place: Path) -> None:
    assert main(["train", "--resume", "--out", str(place / "run"), "--steps", "3"]) == 0
    state = json.loads((place / "run" / "checkpoint" / "state.json").read_text(encoding="utf-8"))
    assert state["step"] == 3


def test_evaluate_writes_json_and_prints_a_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = place / "evaluation.json"
    out.write_text("old", encoding="utf-8")
    line = f"evaluate {place}/run --data {place}/data --out {out} --context 3 --horizon 5 --samples 2 --clips 2"
    assert main(line.split()) == 0
    content = json.loads(out.read_text(encoding="utf-8"))
    assert list(content["horizons"]) == ["1", "2", "3", "4", "5"]
    assert {"psnr", "ssim", "skill"} <= content["horizons"]["1"].keys()
    assert {"persistence", "mean_image"} <= content["baselines"].keys()
    printed = capsys.readouterr().out
    assert f"{content['horizons']['5']['skill']:+.2f}" in printed
    assert str(out) in printed.replace("\n", "")


def test_predict_writes_a_film(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    out = place / "dream.gif"
    line = f"predict {place}/run --data {place}/data --out {out} --context 3 --horizon 5 --samples 2 --clips 1"
    assert main(line.split()) == 0
    with Image.open(out) as film:
        assert getattr(film, "n_frames", 1) == 8
    assert capsys.readouterr().out.strip().endswith("dream.gif")


def test_predict_says_once_where_there_is_no_attention(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uniform = "kind: uniform" in (place / "run" / "config.yaml").read_text(encoding="utf-8")
    line = f"predict {place}/run --out {place}/dream.gif --context 3 --horizon 2 --samples 1 --clips 1 --attention"
    assert main([*line.split(), "one"]) == 0
    assert capsys.readouterr().out.count("attention is uniform") == int(uniform)
    assert main([*line.split(), "none"]) == 0
    assert "uniform" not in capsys.readouterr().out


def test_report_writes_a_page_and_prints_where(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(f"report {place}/run --context 3 --horizon 5".split()) == 0
    page = place / "run" / "report.html"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert capsys.readouterr().out == f"report: {page}\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("evaluate {place}/data --out {place}/new.json", "not a run"),
        ("evaluate {place}/none --out {place}/new.json", "{place}/none"),
        ("evaluate {place}/run --out {place}/new.json --horizon 400", "400"),
        ("evaluate {place}/run --data {place}/none --out {place}/new.json", "{place}/none"),
        ("evaluate {place}/run --data bundled:cartpole --out {place}/new.json", "64"),
        ("predict {place}/run --out {place}/new.avi", "new.avi"),
        ("predict {place}/run", "--out"),
        ("report {place}/data", "not a run"),
    ],
)
def test_a_failed_command_is_one_line_and_writes_nothing(
    arguments: str, expected: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.format(place=place).split()) == 2
    message = capsys.readouterr().err
    assert expected.format(place=place) in message
    assert message.count("\n") == 1
    assert not list(place.glob("new*"))


def test_a_state_is_observed_predicted_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shard(tmp_path / "data" / "0.h5", [synthetic_episode(14, seed, size=32) for seed in range(3)])
    train = f"train fast --data {tmp_path}/data --out {tmp_path}/run --steps 2 --batch 1 --length 6 --held-out 0.4"
    assert main([*train.split(), "--device", "cpu", "--no-pictures", "--observe-state"]) == 0
    assert "elbo/state_nll" in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8")
    capsys.readouterr()
    line = f"evaluate {tmp_path}/run --out {tmp_path}/scores.json --context 3 --horizon 5 --samples 2 --device cpu"
    assert main(line.split()) == 0
    states = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["states"]
    assert list(states) == ["1", "2", "3", "4", "5"]
    printed = capsys.readouterr().out
    assert "state: R²" in printed and f"{states['5']['error']:.2f}" in printed
