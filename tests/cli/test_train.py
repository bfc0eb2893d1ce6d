"""`aime train`: from the words on the line to the run's config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from aime.cli import ablate, benchmark
from aime.cli.ablate import AblationOptions
from aime.cli.arguments import flags_of
from aime.cli.benchmark import DmcVbOptions
from aime.cli.main import main
from aime.cli.train import configure
from aime.data import Episode, write_shard
from aime.errors import AimeError
from aime.primitives.config_io import to_plain, to_yaml
from aime.training.config import TrainConfig
from aime.world_model.presets import PRESETS
from aime.world_model.saved import read_run


@pytest.fixture
def data(tmp_path: Path, make_episode: Callable[..., Episode]) -> str:
    write_shard(tmp_path / "data" / "0.h5", [make_episode(12, seed, size=32) for seed in range(2)])
    return str(tmp_path / "data")


def save_config(config: TrainConfig) -> None:
    settings = to_plain(config)
    assert isinstance(settings, dict)
    content = {"preset": settings.pop("preset"), "model": settings.pop("model"), "train": settings}
    config.out.mkdir(parents=True)
    (config.out / "config.yaml").write_text(to_yaml(content), encoding="utf-8")


def test_the_preset_is_sized_to_the_data(data: str) -> None:
    config = configure(["tiny", "--data", data, "--out", "r", "--steps", "3"])
    assert config == TrainConfig(data, Path("r"), PRESETS["tiny"](2, 32), "tiny", steps=3)


def test_any_field_is_a_flag(data: str) -> None:
    flags = (
        "--minutes 0.5 --model.prior.components 7 --weights.elbo.kl-z 0.5 --optimizer.learning_rate 1e-4 --no-pictures"
    )
    config = configure(["base", "--data", data, "--out", "r", *flags.split()])
    assert (config.preset, config.steps, config.minutes, config.pictures) == ("base", None, 0.5, False)
    assert config.model.prior.components == 7
    assert config.model.tokenizer == PRESETS["base"](2, 32).tokenizer
    assert config.weights.elbo.kl_z == 0.5
    assert config.optimizer.learning_rate == 1e-4


def test_several_sources_are_one_line_of_data(data: str, tmp_path: Path, make_episode: Callable[..., Episode]) -> None:
    other = tmp_path / "other"
    write_shard(other / "0.h5", [make_episode(12, seed, size=32) for seed in range(2)])
    config = configure(["tiny", "--data", data, f"{other}=0.3", "--out", str(tmp_path / "r"), "--steps", "3"])
    assert config.data == f"{data}, {other}=0.3"
    save_config(config)
    assert configure(["--resume", "--out", str(tmp_path / "r")]).data == config.data
    with pytest.raises(AimeError, match="the weight is 0, expected a number above 0"):
        configure(["tiny", "--data", data, f"{other}=0", "--out", "r2", "--steps", "3"])


def test_resuming_keeps_what_the_run_was_started_with(data: str, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    flags = "--steps 4 --batch 3 --model.prior.components 7 --seed 9"
    first = configure(["tiny", "--data", data, "--out", out, *flags.split()])
    save_config(first)
    resumed = configure(["--resume", "--out", out])
    assert (resumed.resume, resumed.batch, resumed.seed, resumed.steps) == (True, 3, 9, 4)
    assert resumed.model == first.model
    longer = configure(["tiny", "--data", data, "--out", out, "--minutes", "2", "--resume", "--batch", "5"])
    assert (longer.steps, longer.minutes, longer.batch, longer.seed) == (None, 2.0, 5, 9)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", "no preset is given"),
        ("--data {data} --out r --steps 3", "no preset is given"),
        ("tinny --data {data} --out r --steps 3", "no preset 'tinny'; expected tiny, base, fast: did you mean tiny?"),
        ("tiny --out r --steps 3", "--data is missing"),
        ("tiny --data --out r --steps 3", "--data is missing"),
        ("tiny --data {data} --steps 3", "--out is missing"),
        ("tiny --data {data} --out r", "neither --steps nor --minutes"),
        ("tiny --data {data} --out r --steps 3 --minutes 2", "expected one of the two"),
        ("tiny --data {data} --out r --steps many", "--steps is 'many'; expected INT"),
        ("tiny --data {data} --out r --steps 0", "expected a positive number"),
        ("tiny --data {data} --out r --minutes nan", "expected a positive number"),
        ("tiny --data {data} --out r --minutes inf", "expected a positive number"),
        ("tiny --data {data} --out r --steps 3 --held-out 1", "held_out is 1.0; expected a share in [0, 1)"),
        ("tiny --data {data} --out r --steps 3 --batch 1000000000", "batch is 1000000000; expected 65536 or less"),
        ("tiny --data {data} --out r --steps 3 --length 1000000000", "length is 1000000000; expected 65536 or less"),
        (
            "tiny --data {data} --out r --steps 3 --replay.clips 1000000000",
            "replay.clips is 1000000000; expected 65536",
        ),
        (
            "tiny --data {data} --out r --steps 3 --replay.capacity 1000000000",
            "--replay.capacity is no longer a setting: it is always 256; leave it out",
        ),
        (
            "tiny --data {data} --out r --steps 3 --settle.passes 10",
            "--settle.passes is no longer a setting: it is always 60.0; leave it out",
        ),
        (
            "tiny --data {data} --out r --steps 3 --zoom.share=0.5",
            "--zoom.share is no longer a setting: it is always 0.0; leave it out",
        ),
        (
            "tiny --data {data} --out r --steps 3 --weights.kl-balance.prior 0.5",
            "--weights.kl-balance.prior is no longer a setting: it is always 1.0; leave it out",
        ),
        (
            "tiny --data {data} --out r --steps 3 --model.perceiver.window 99999999999",
            "perceiver.window is 99999999999",
        ),
        ("tiny --data {data} --out r --steps 3 --model.prior.component 7", "did you mean --model.prior.components?"),
        ("tiny --data {data}/none --out r --steps 3", "{data}/none"),
        ("tiny --data bundled:cartpol --out r --steps 3", "cartpol"),
        ("tiny --data {data} --out r --steps 3 --model.latent 0", "latent is 0"),
        ("tiny --data {data} --out r --steps 3 --precision fp8", "fp8"),
        ("--resume", "--out is missing"),
        ("--resume --out {data}/none", "{data}/none"),
        ("--resume --out {data}", "not a run"),
    ],
)
def test_a_mistake_is_one_line(arguments: str, expected: str, data: str) -> None:
    with pytest.raises(AimeError) as error:
        configure(arguments.format(data=data).split())
    assert expected.format(data=data) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_setting_is_named_once(data: str) -> None:
    with pytest.raises(AimeError, match=r"^model\.attention\.slots is 0; expected 1 or more"):
        configure(["tiny", "--data", data, "--out", "r", "--steps", "3", "--model.attention.slots", "0"])


def test_help_needs_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        configure(["tiny", "--help"])
    assert not stop.value.code
    text = capsys.readouterr().out
    assert "aime train PRESET" in text
    assert "--model.prior.components" in text


@pytest.mark.parametrize(
    ("configuring", "kind", "balancer"),
    [
        (configure, TrainConfig, "sum"),
        (ablate.configure, AblationOptions, "rgb"),
        (benchmark.configure, DmcVbOptions, "sum"),
    ],
)
def test_help_is_one_screen_of_settings_that_exist(
    configuring: Callable[[list[str]], object],
    kind: type[TrainConfig],
    balancer: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        configuring(["--preset", "fast", "--help"])
    assert not stop.value.code
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 50 and max(map(len, lines)) <= 80
    assert "--help-all" in lines[-1]
    flags = [line.split()[0] for line in lines if line.startswith("  --")]
    assert 18 <= len(flags) <= 28
    assert set(flags) <= {*flags_of(kind)}
    assert any(line.startswith("  --balancer") and line.endswith(f"({balancer})") for line in lines), "its default"


def test_help_all_has_every_setting(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as stop:
        configure(["tiny", "--help-all"])
    assert not stop.value.code
    words = set(capsys.readouterr().out.replace(",", " ").split())
    assert {*flags_of(TrainConfig)} - words == set()


def test_observing_the_state_takes_its_width_from_the_data(data: str, tmp_path: Path) -> None:
    config = configure(["tiny", "--data", data, "--out", "r", "--steps", "3", "--observe-state"])
    assert (config.observe_state, config.model.state.width) == (True, 3)
    given = configure(["tiny", "--data", data, "--out", "r", "--steps", "3", "--model.state.width", "3"])
    assert given.model == config.model
    assert configure(["tiny", "--data", data, "--out", "r", "--steps", "3"]).model.state.width == 0
    save_config(replace(config, out=tmp_path / "run"))
    assert configure(["--resume", "--out", str(tmp_path / "run")]).model.state.width == 3


def test_fine_tuning_keeps_the_model_of_the_run(data: str, tmp_path: Path) -> None:
    line = ["tiny", "--data", data, "--steps", "3", "--out"]
    config = configure([*line, str(tmp_path / "run")])
    # as of a version with other defaults, and before there were heads
    wider = replace(config.model.prior, components=7)
    old = replace(config.model, prior=wider, control=replace(config.model.control, kind="none"))
    save_config(replace(config, model=old))
    start = ["--init-from", str(tmp_path / "run")]
    tuned = configure([*line, "r", *start])
    assert tuned.model == replace(config.model, prior=wider)
    assert configure([*line, "r", "--init_from", start[1]]) == tuned, "the parser takes underscores, too"
    assert configure([*line, "r", *start, "--observe-state"]).model.state.width == 3
    assert configure([*line, "r", *start, "--model.prior.components", "9"]).model.prior.components == 9
    with pytest.raises(AimeError, match=r"run: --init-from: its preset is tiny; expected base"):
        configure(["base", *line[1:], "r", *start])


def test_the_bundled_model_can_be_fine_tuned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"train tiny --data bundled:cartpole --init-from bundled:cartpole --out {tmp_path / 'run'} --steps 1"
    quick = "--batch 1 --length 4 --overshoot.steps 2 --device cpu --precision fp32 --no-pictures"
    quick += " --dynamics-finetuning.share 0"
    assert main([*line.split(), *quick.split()]) == 0, capsys.readouterr().err
    before, after = (read_run(run).model for run in ("bundled:cartpole", tmp_path / "run"))
    assert replace(after, control=before.control) == before


def test_observing_a_state_that_is_not_there_is_refused(
    data: str, tmp_path: Path, make_episode: Callable[..., Episode]
) -> None:
    write_shard(tmp_path / "none" / "0.h5", [make_episode(12, seed, size=32, state_width=None) for seed in range(2)])
    arguments = ["tiny", "--data", str(tmp_path / "none"), "--out", "r", "--steps", "3", "--observe-state"]
    with pytest.raises(AimeError, match=r"none: has no 'state'; expected one for --observe-state"):
        configure(arguments)
    alone = configure(["tiny", "--data", data, "--out", str(tmp_path / "run"), "--steps", "3"])
    save_config(alone)
    with pytest.raises(AimeError, match=r"observe_state is on and model\.state\.width is 0"):
        configure(["--resume", "--out", str(tmp_path / "run"), "--observe-state"])


def test_runs_of_before_there_were_states_go_on(data: str, tmp_path: Path) -> None:
    save_config(configure(["tiny", "--data", data, "--out", str(tmp_path / "run"), "--steps", "3"]))
    path = tmp_path / "run" / "config.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["model"].pop("state"), content["train"].pop("observe_state")
    content["train"]["weights"]["elbo"].pop("state_nll")
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    resumed = configure(["--resume", "--out", str(tmp_path / "run")])
    assert (resumed.model.state.width, resumed.observe_state) == (0, False)
