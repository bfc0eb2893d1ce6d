"""A run's weights come back as they were saved, and every misfit is one line."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from aime.errors import AimeError
from aime.perception.state_reader import StateConfig
from aime.primitives.config_io import to_plain, to_yaml
from aime.primitives.tensor_files import fill, save_weights
from aime.world_model.config import ModelConfig
from aime.world_model.model import AIME
from aime.world_model.presets import tiny
from aime.world_model.saved import current_name, read_run, read_weights

CONFIG = tiny(action_width=2, image_size=32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AIME]:
    run = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    model = AIME(CONFIG)
    save_weights(model.state_dict(), run / "checkpoint" / "ema.safetensors")
    (run / "config.yaml").write_text(
        to_yaml({"preset": "tiny", "model": CONFIG, "train": {"data": "bundled:cartpole", "seed": 3}})
    )
    return run, model


@pytest.fixture
def run(saved: tuple[Path, AIME], tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved[0], tmp_path / "run"))


def test_weights_come_back(saved: tuple[Path, AIME]) -> None:
    run, model = saved
    loaded = AIME.from_pretrained(run)
    assert loaded.config == CONFIG
    assert not loaded.training
    state, expected = loaded.state_dict(), model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_from_pretrained_gives_the_same_numbers(saved: tuple[Path, AIME]) -> None:
    run, model = saved
    frames = torch.randint(0, 256, (1, 2, 3, 32, 32), dtype=torch.uint8)
    loaded = AIME.from_pretrained(str(run))
    was_training = model.training
    torch.testing.assert_close(loaded.encode(frames), model.eval().encode(frames), rtol=0, atol=0)
    model.train(was_training)


def test_between_the_two_renames_the_old_checkpoint_serves(run: Path) -> None:
    (run / "checkpoint").rename(run / "checkpoint.old")
    assert AIME.from_pretrained(run).config == CONFIG


def test_a_run_describes_itself(run: Path) -> None:
    info = read_run(run)
    assert (info.path, info.preset, info.model, info.data, info.seed) == (run, "tiny", CONFIG, "bundled:cartpole", 3)


def _edit(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = run / "config.yaml"
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))


def _weights(run: Path) -> Path:
    return run / "checkpoint" / "ema.safetensors"


def _resave(run: Path, **changes: torch.Tensor | None) -> None:
    tensors: dict[str, Any] = {**load_file(_weights(run)), **changes}
    save_file({name: value for name, value in tensors.items() if value is not None}, _weights(run))


def _claim_more_than_there_is(run: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**6], "data_offsets": [0, 4 * 10**6]}}).encode()
    _weights(run).write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)


def _put_a_file_there(run: Path) -> None:
    shutil.rmtree(run)
    run.write_text("")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (shutil.rmtree, "found nothing there, expected the run directory"),
    "a file": (_put_a_file_there, "found a file there"),
    "no config": (lambda run: (run / "config.yaml").unlink(), "not a run: it has no config.yaml"),
    "no checkpoint": (lambda run: shutil.rmtree(run / "checkpoint"), "no checkpoint yet"),
    "no weights": (lambda run: _weights(run).unlink(), "ema.safetensors: missing"),
    "empty": (lambda run: _weights(run).write_bytes(b""), "truncated or no safetensors"),
    "truncated header": (lambda run: os.truncate(_weights(run), 100), "truncated or no safetensors"),
    "truncated data": (lambda run: os.truncate(_weights(run), 100_000), "truncated or no safetensors"),
    "short data": (_claim_more_than_there_is, "truncated or no safetensors"),
    "foreign": (lambda run: _weights(run).write_bytes(b"\x89PNG" * 400), "truncated or no safetensors"),
    "pickled": (lambda run: torch.save({"a": torch.ones(2)}, _weights(run)), "truncated or no safetensors"),
    "tensor missing": (lambda run: _resave(run, null_action=None), r"'null_action': missing, expected \[2\] float32"),
    "tensor too many": (lambda run: _resave(run, more=torch.ones(3)), r"'more': found \[3\] float32, expected only"),
    "shape": (
        lambda run: _resave(run, null_action=torch.ones(3)),
        r"'null_action': found \[3\] float32, expected \[2\]",
    ),
    "dtype": (
        lambda run: _resave(run, null_action=torch.ones(2).double()),
        r"found \[2\] float64, expected \[2\] float32",
    ),
    "not YAML": (lambda run: (run / "config.yaml").write_text("a: ["), "config.yaml: not YAML"),
    "no model": (lambda run: _edit(run, lambda it: it.pop("model")), "model: missing, expected a mapping"),
    "no seed": (lambda run: _edit(run, lambda it: it["train"].pop("seed")), "train.seed: missing, expected an integer"),
    "preset": (lambda run: _edit(run, lambda it: it.update(preset=3)), "preset: found 3, expected a string"),
    "size": (lambda run: _edit(run, lambda it: it["model"].update(image_size=33)), "model: image_size is 33"),
    "unknown": (lambda run: _edit(run, lambda it: it["model"].update(lat=3)), "model.lat: unknown field"),
    "another width": (lambda run: _edit(run, lambda it: it["model"].update(action_width=3)), "'null_action': found"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_misfit_is_one_line_that_names_the_place(run: Path, name: str) -> None:
    damage, message = BAD[name]
    damage(run)
    with pytest.raises(AimeError, match=message) as caught:
        AIME.from_pretrained(run)
    assert str(caught.value).startswith(str(run))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.update(belief=10**9),
        lambda model: model.update(belief=4000, latent=4000, context=4000),
        lambda model: model.update(action_width=10**12),
        lambda model: model["tokenizer"].update(codes=10**9),
        lambda model: model["perceiver"].update(layers=10**9),
        lambda model: model["perceiver"].update(layers=4000),
        lambda model: model["prior"].update(components=10**7),
    ],
)
def test_a_config_larger_than_its_weights_takes_no_memory(
    run: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    _edit(run, lambda content: change(content["model"]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AimeError) as caught:
        AIME.from_pretrained(run)
    assert str(caught.value).startswith(str(run))
    assert len(str(caught.value)) < 400
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "kB"


def test_weights_that_are_not_finite_are_refused(run: Path) -> None:
    _resave(run, null_action=torch.tensor([0.0, torch.nan]))
    with pytest.raises(AimeError, match=r"ema.safetensors: tensor 'null_action': found NaN or infinity"):
        AIME.from_pretrained(run)


def test_any_memory_format_is_saved(tmp_path: Path) -> None:
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    save_weights({"weight": weight, "scalar": torch.tensor(3)}, tmp_path / "w.safetensors")
    restored = read_weights(tmp_path / "w.safetensors")
    assert torch.equal(restored["weight"], weight)
    assert restored["scalar"].item() == 3
    assert [each.name for each in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_module_is_filled_whole_or_not_at_all() -> None:
    module = torch.nn.Linear(2, 2)
    before = module.weight.detach().clone()
    with pytest.raises(AimeError, match="'bias': missing"):
        fill(module, {"weight": torch.zeros(2, 2)}, Path("w.safetensors"))
    assert torch.equal(module.weight, before)


def test_every_preset_survives_the_config_file(tmp_path: Path) -> None:
    plain = to_plain({"preset": "tiny", "model": ModelConfig(), "train": {"data": "d", "seed": 0}})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain))
    assert read_run(tmp_path).model == ModelConfig()


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("perceiver", "dropout", 2.5),
        ("perceiver", "heads", 5),
        ("perceiver", "width", 6),
        ("perceiver", "latents", -3),
        ("tokenizer", "channels", 0),
        ("tokenizer", "code_width", -1),
        ("tokenizer", "multipliers", [0, 0, 0]),
        ("encoder", "channels", -24),
        ("encoder", "cells", [1, 2, 2]),
        ("encoder", "cells", 10**9),
        ("decoder", "channels", 1),
        ("decoder", "multipliers", [1, -2, 2]),
        ("attention", "slots", 10**6),
    ],
)
def test_numbers_that_make_no_model_are_one_line(run: Path, part: str, name: str, value: object) -> None:
    _edit(run, lambda content: content["model"][part].__setitem__(name, value))
    with pytest.raises(AimeError) as caught:
        AIME.from_pretrained(run)
    assert str(caught.value).startswith(str(run))


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("dynamics.lstm.weight_hh_l0", "dynamics.recurrence.lstm.weight_hh_l0"),
        ("prior.head.weight.exp_avg", "dynamics.prior.head.weight.exp_avg"),
        ("consensus.control.reward.logits.bias", "consensus.dynamics.control.reward.logits.bias"),
        ("second_observation.scale.mean", "dynamics.state_head.scale.mean"),
        ("second_observation.reader.unknown", "state_reader.unknown"),
        ("angle.elbo", "angle.elbo"),
    ],
)
def test_names_of_earlier_versions_are_brought_up_to_date(before: str, now: str) -> None:
    assert current_name(before) == current_name(now) == now


def test_present_names_stay() -> None:
    names = [*AIME(replace(CONFIG, state=StateConfig(width=2))).state_dict()]
    assert [current_name(name) for name in names] == names
