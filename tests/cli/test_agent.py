"""`aime agent`, from words on the line to files on disk, over a small run that was never trained."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tests.inference.runs import Run, write_run

from aime.cli.main import main
from aime.data import open_dataset

QUICK_IMAGINE = (
    "--learning.steps 3 --learning.starts 8 --learning.horizon 2 --learning.policy.hidden 16 "
    "--learning.warm-start.critic-steps 100 --learning.warm-start.policy-steps 100"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("agents"), action_width=1)


def test_imitate_then_imagine_leave_agents(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(f"agent imitate {run.path} --imitation.steps 20 --imitation.check-every 10".split()) == 0
    assert main(f"agent imagine {run.path} {QUICK_IMAGINE}".split()) == 0
    printed = capsys.readouterr().out
    for name in ("imitate", "imagine"):
        place = run.path / "agents" / name
        assert {"config.yaml", "agent.safetensors", "log.jsonl"} <= {path.name for path in place.iterdir()}
        lines = [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
        assert lines[-1]["step"] == {"imitate": 20, "imagine": 3}[name]
        assert str(place) in printed.replace("\n", "")


@pytest.mark.skipif(find_spec("dm_control") is None, reason="needs dm_control")
@pytest.mark.parametrize("policy", ["imitate", "imagine", "plan", "expert", "random"])
def test_evaluate_counts_returns(run: Run, policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("imitate --imitation.steps 2", f"imagine {QUICK_IMAGINE}"):
        action, *flags = name.split()
        assert main(["agent", action, str(run.path), *flags]) == 0
    out, video = tmp_path / "returns.json", tmp_path / "film.webp"
    line = f"agent evaluate {run.path} --env dmc:cartpole_swingup --policy {policy} --episodes 2 --steps 4 --out {out}"
    quick = " --planner.candidates 8 --planner.elite 2 --planner.horizon 2"
    films = policy in ("imitate", "imagine", "plan")
    assert main((f"{line}{quick} --video {video}" if films else line).split()) == 0
    content = json.loads(out.read_text())
    assert len(content["returns"]) == 2 and content["steps"] == 4
    assert content["mean"]["low"] <= content["mean"]["mean"] <= content["mean"]["high"]
    assert content["noise"] == (0.1 if policy == "imagine" else 0.0)
    assert f"{content['mean']['mean']:.1f}" in capsys.readouterr().out
    assert video.exists() == films


@pytest.mark.skipif(find_spec("dm_control") is None, reason="needs dm_control")
def test_online_continues_round_by_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start, out = tmp_path / "run", tmp_path / "online"
    recorded = f"collect dmc:cartpole_swingup --out {tmp_path}/data --episodes 3 --length 8 --image-size 32 --workers 1"
    assert main(recorded.split()) == 0
    flags = "--steps 1 --batch 2 --length 6 --overshoot.steps 3 --no-pictures --adversary.no-enabled"
    flags += " --dynamics-finetuning.share 0"
    assert main(["train", "tiny", "--data", f"{tmp_path}/data", "--out", str(start), *flags.split()]) == 0
    line = f"agent online {start} --env dmc:cartpole_swingup --out {out} --online.episodes 2 --online.steps 6"
    quick = "--online.minutes 0.001 --online.learning.steps 2 --online.learning.starts 4 --online.learning.horizon 2"
    quick += " --online.learning.warm-start.critic-steps 3 --online.learning.warm-start.policy-steps 3"
    assert main([*line.split(), *quick.split(), "--online.rounds", "1"]) == 0
    before = (out / "data" / "round-000.h5").read_bytes()
    assert main([*line.split(), *quick.split(), "--online.rounds", "2"]) == 0
    assert (out / "data" / "round-000.h5").read_bytes() == before
    assert sorted(path.name for path in (out / "rounds").iterdir()) == ["000", "001"]
    lines = [json.loads(line) for line in (out / "returns.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [0, 1] and all(len(line["returns"]) == 2 for line in lines)
    moved = (tmp_path / "data").rename(tmp_path / "moved")
    assert main(line.split()) == 2 and "say where it is by --data" in capsys.readouterr().err
    assert main([*line.split(), *quick.split(), "--data", str(moved), "--online.rounds", "2"]) == 0
    played = f"agent evaluate {start} --env dmc:cartpole_swingup --policy random --episodes 1 --steps 2 --data {moved}"
    assert main(played.split()) == 0
    episodes = list(open_dataset(out / "data" / "round-001.h5"))
    assert [len(episode) for episode in episodes] == [7, 7]
    assert lines[1]["returns"] == pytest.approx([float(np.nansum(each.reward)) for each in episodes], rel=1e-5)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("agent imagin {run}", "did you mean imagine?"),
        ("agent imitate bundled:cartpole", "from it by `aime train tiny"),
        ("agent imagine {run}/nothing", "expected the run directory"),
        ("agent imagine {run} --data {run}/nothing", "no such file or directory"),
        ("agent evaluate {run} --env gym:Pendulum", "expected dmc:DOMAIN_TASK"),
        ("agent evaluate {run} --env dmc:cartpole_swingup --episodes 0", "episodes is 0; expected 1 or more"),
        ("agent evaluate {run} --env dmc:cartpole_swingup --policy plan --noise 0.1", "noise is 0.1 for plan"),
        (
            "agent evaluate {run} --env dmc:cartpole_swingup --policy random --video film.webp",
            "video is film.webp for random",
        ),
        ("agent evaluate {run} --env dmc:reacher_easy --policy random", "actions of width 2, expected 1"),
        ("agent evaluate {run} --env dmc:cheetah_run --policy expert", "has no controller"),
    ],
)
def test_what_cannot_be_done_is_one_line(run: Run, line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "--env dmc" in line and find_spec("dm_control") is None:
        pytest.skip("needs dm_control")
    assert main(line.format(run=run.path).split()) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
