"""`aime benchmark dmc-vb`: a directory of levels in, one table out, and nothing done twice."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tests.conftest import synthetic_episode
from tests.inference.ridge import held_by_what_is_left_out

from aime.benchmarking.dmc_vb import plan as planning
from aime.cli.benchmark import configure
from aime.cli.main import main
from aime.data import Episode, Split, open_dataset, write_shard
from aime.inference.loading import load_run
from aime.inference.probe import WARM_UP

SMALL = (
    "--steps 1 --batch 1 --length 4 --held-out 0.4 --overshoot.steps 2 --device cpu "
    "--precision fp32 --adversary.no-enabled --no-pictures --dynamics-finetuning.share 0 "
    "--imitation.steps 4 --imitation.check-every 2 --imitation.policy.hidden 16"
)
PLAYED = ("none", "static", "dynamic")


def episode(seed: int) -> Episode:
    """Frames and actions as of a cartpole of 32 pixels, and a state of three numbers that move."""
    made = synthetic_episode(16, seed, 32, action_width=1)
    assert made.state is not None
    made.state[:, 1:] = np.random.default_rng(seed).normal(size=(16, 2)) + made.state[:, :1]
    return made


def write_levels(place: Path) -> Path:
    named = {"state_names": json.dumps({"place": 1, "others": 2})}
    for number, name in enumerate(("none", "dynamic_medium/train")):
        write_shard(place / name / "0.h5", [episode(8 * number + each) for each in range(8)], named)
    return place


class Done(NamedTuple):
    """A command, where it wrote, and what it said."""

    line: list[str]
    out: Path
    printed: str
    told: str

    def content(self) -> dict[str, Any]:
        return json.loads((self.out / "benchmark.json").read_text(encoding="utf-8"))


def benchmark(line: list[str], out: Path) -> Done:
    printed, told = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(told):
        patch.setenv("COLUMNS", "250")
        assert main(line) == 0
    return Done(line, out, printed.getvalue(), told.getvalue())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    place = tmp_path_factory.mktemp("benchmark")
    data, out = write_levels(place / "data"), place / "out"
    flags = f"--levels none,dynamic --env dmc:cartpole_swingup --episodes 2 --episode-steps 3 --out {out} {SMALL}"
    return benchmark(["benchmark", "dmc-vb", str(data), *flags.split()], out)


def test_the_plan_comes_first(done: Done) -> None:
    plan, work = done.told.split("none, seed 0 (1 of 2): training")
    assert "none: " in plan and "4 training and 4 held-out episodes (3 test), 128 frames" in plan
    assert "training: 2 of tiny, 1 steps each" in plan
    assert "a probe of (h, z) for the 3 numbers of the state, a clone of 4 steps" in plan
    assert "dynamic, seed 0 (2 of 2): training" in work


def test_the_table_is_that_of_the_numbers(done: Done) -> None:
    content, text = done.content(), (done.out / "benchmark.md").read_text(encoding="utf-8")
    assert [level["level"] for level in content["levels"]] == ["none", "dynamic"]
    for level, run, test in zip(content["levels"], content["runs"], (3, 2), strict=True):
        assert (level["episodes"], level["held_out"], level["steps"]) == (4, test, 1)
        assert level["state"]["low"] <= level["state"]["high"]
        assert level["state"]["mean"] == pytest.approx(run["state"])
        flat = [value for values in run["entries"].values() for value in values]
        assert run["state"] == pytest.approx(np.mean(flat))
        assert level["fields"]["place"]["mean"] == pytest.approx(run["entries"]["0"][0])
        assert level["fields"]["others"]["mean"] == pytest.approx(np.mean(flat[1:]))
        shown = f"{level['state']['mean']:.2f} (".replace("-", "−")
        assert shown in text and shown in done.printed
    assert (done.out / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    assert text.count("\n| none |") == text.count("\n| dynamic |") == 2
    assert str(done.out / "benchmark.md") in done.printed


def test_returns_are_those_of_the_clones(done: Done) -> None:
    content = done.content()
    if content["environment"] is None:
        pytest.skip(content["absence"])
    for level, run in zip(content["levels"], content["runs"], strict=True):
        assert list(run["returns"]) == list(PLAYED)
        for distractor in PLAYED:
            assert len(run["returns"][distractor]) == 2
            assert level["returns"][distractor]["mean"] == pytest.approx(np.mean(run["returns"][distractor]))
    # the same clone and the same seeds, seen through other pictures
    line = f"agent evaluate {content['runs'][1]['run']} --env dmc:cartpole_swingup --policy imitate --episodes 2"
    out = done.out / "again.json"
    assert main([*line.split(), *f"--steps 3 --device cpu --distractor static --out {out}".split()]) == 0
    again = json.loads(out.read_text(encoding="utf-8"))
    assert (again["returns"], again["distractor"]) == (content["runs"][1]["returns"]["static"], "static")


def features(run: Path, episodes: list[Episode]) -> np.ndarray:
    _, model = load_run(run, "cpu")
    found = []
    for each in episodes:
        action = torch.from_numpy(each.action)[None]
        frames = torch.from_numpy(each.pixels).permute(0, 3, 1, 2)[None]
        with torch.no_grad():
            output = model.forward_sequence(frames, action.nan_to_num(), ~action.isnan().any(-1))
        found.append(torch.cat([output.beliefs, output.latents], -1)[0, WARM_UP:])
    return torch.cat(found).double().numpy()


def test_the_probe_is_a_ridge_regression_judged_on_the_test_part(done: Done) -> None:
    run = done.content()["runs"][1]
    splits: tuple[Split, ...] = ("train", "test")
    learned, judged = (
        list(open_dataset(Path(done.line[2]) / "dynamic_medium" / "train", each, 0.4)) for each in splits
    )
    inputs, test = (features(Path(run["run"]), part) for part in (learned, judged))
    targets, truth = (
        np.concatenate([np.asarray(each.state)[WARM_UP:] for each in part]).astype(np.float64)
        for part in (learned, judged)
    )
    lengths = [len(each.action) - WARM_UP for each in learned]
    told, _ = held_by_what_is_left_out(inputs, targets, test, np.repeat(np.arange(4), lengths))
    error = ((told - truth) ** 2).mean(0)
    wanted = 1 - error / truth.var(0)
    assert [run["entries"][str(entry)][0] for entry in range(3)] == pytest.approx(wanted, rel=0.02, abs=0.02)


def test_what_is_finished_is_kept(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = sorted(done.out.glob("*/seed-0/benchmark/*.json"))
    before = {path: path.stat().st_mtime_ns for path in [*parts, *done.out.glob("*/seed-0/checkpoint/*")]}
    again = benchmark(done.line, done.out)
    assert "2 already complete" in again.told and ": training\n" not in again.told
    assert {path: path.stat().st_mtime_ns for path in before} == before
    lost = done.out / "none" / "seed-0" / "benchmark" / "probe.json"
    content = lost.read_bytes()
    lost.write_bytes(content[:20])
    benchmark(done.line, done.out)
    assert lost.read_bytes() == content, "a damaged part is made again"
    monkeypatch.setattr(planning, "rendering_problem", lambda timeout: "there is no GL library")
    unplayed = benchmark(done.line, done.out)
    assert "evaluation of clones: left out: there is no GL library" in unplayed.told
    text = (done.out / "benchmark.md").read_text(encoding="utf-8")
    assert text.count("| not played | not played | not played |") == 2 and "there is no GL library" in text


def test_a_clone_that_was_replaced_is_made_again(done: Done) -> None:
    run = done.out / "none" / "seed-0"
    part, weights = run / "benchmark" / "clone.json", run / "agents" / "imitate" / "agent.safetensors"
    before = part.read_bytes(), weights.read_bytes()
    assert main(f"agent imitate {run} --seed 7 --imitation.steps 2 --imitation.policy.hidden 16".split()) == 0
    assert weights.read_bytes() != before[1]
    benchmark([*done.line, "--episodes", "0"], done.out)
    assert (part.read_bytes(), weights.read_bytes()) == before


def test_data_that_has_changed_is_refused(done: Done, capsys: pytest.CaptureFixture[str]) -> None:
    extra = Path(done.line[2]) / "none" / "1.h5"
    write_shard(extra, [episode(99)], {"state_names": json.dumps({"place": 1, "others": 2})})
    assert main(done.line) == 2
    extra.unlink()
    message = capsys.readouterr().err
    assert "has 1 new episodes and lacks 0 of those" in message and message.count("\n") == 1


def test_another_training_is_refused(done: Done, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*done.line, "--steps", "2"]) == 2
    message = capsys.readouterr().err
    assert "steps is 1 in the run that exists; expected 2" in message and message.count("\n") == 1


def test_an_interruption_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from aime.benchmarking.dmc_vb import study

    def interrupted(config: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "train_isolated", interrupted)
    data = write_levels(tmp_path / "data")
    line = f"benchmark dmc-vb {data} --levels none --episodes 0 --out {tmp_path}/out {SMALL}"
    assert main(line.split()) == 130
    assert "run the same command to continue" in capsys.readouterr().err


def test_every_level_is_trained_once_before_any_is_repeated(tmp_path: Path) -> None:
    data = write_levels(tmp_path / "data")
    line = f"{data} --levels none,dynamic --minutes 2 --held-out 0.4 --seeds 2 --seed 7 --episodes 0 --batch 3"
    options, source = configure(line.split())
    protocol = planning.ProtocolConfig(source, ("none", "dynamic"), options.seeds, episodes=0)
    plan = planning.make_plan(protocol, options)
    found = [(each.level, each.config.seed, each.config.batch) for each in plan.trainings()]
    assert found == [("none", 7, 3), ("dynamic", 7, 3), ("none", 8, 3), ("dynamic", 8, 3)]
    assert len({each.config.out for each in plan.trainings()}) == 4
    assert "2 min each: 8 min" in plan.describe()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("dmc-vc {data} --steps 1", "did you mean dmc-vb?"),
        ("dmc-vb --steps 1", "no directory is named"),
        ("dmc-vb {data} --steps 1", "has no level static; expected"),
        ("dmc-vb {data} --steps 1 --levels none,statik", "there is no level 'statik'"),
        ("dmc-vb {data}/none --steps 1", "or pass the parent directory"),
        ("dmc-vb {data} --levels none", "neither --steps nor --minutes"),
        ("dmc-vb {data} --levels none --steps 1 --data {data}", "--data is given"),
        ("dmc-vb {data} --levels none --steps 1 --episode 3", "did you mean --episodes?"),
        ("dmc-vb {data} --levels none --steps 1 --seeds 0", "--seeds is 0; expected 1 or more"),
        ("dmc-vb {data} --levels none --steps 1 --held-out 0", "expected 1 or more to evaluate on"),
        ("dmc-vb {data} --levels none --steps 1", "does not name its environment; expected dmc:DOMAIN_TASK"),
        ("dmc-vb {data} --levels none --steps 1 --env gym:CartPole-v1", "--env is gym:CartPole-v1; expected dmc:"),
        ("dmc-vb {data} --levels none --steps 1 --env dmc:walker_wallk", "dm_control has no such task"),
        ("dmc-vb {data} --levels none --steps 1 --env dmc:walker_walk", "has actions of width 6; expected 1"),
    ],
)
def test_a_mistake_is_one_line_and_trains_nothing(
    arguments: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "dmc:walker" in arguments:
        pytest.importorskip("dm_control")
    monkeypatch.setattr(planning, "rendering_problem", lambda timeout: None)
    data, out = write_levels(tmp_path / "data"), tmp_path / "out"
    assert main(["benchmark", *arguments.format(data=data).split(), "--out", str(out)]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert not out.exists()
