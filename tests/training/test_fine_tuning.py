"""A run that starts from another run keeps its weights, action units and mean frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import synthetic_episode
from tests.models import SIZE, small_config
from tests.training.runs import short_run

from aime.data import Clips, open_dataset, write_shard
from aime.data.action_scale import ActionScale
from aime.errors import AimeError
from aime.primitives.tensor_files import fill
from aime.training.config import TrainConfig
from aime.training.joint import JointLearning
from aime.training.optimizers import OptimizerConfig
from aime.training.run_directory import in_action_units_of
from aime.training.trainer import train
from aime.world_model.model import AIME
from aime.world_model.saved import RunInfo, read_run


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return short_run(tmp_path)


def test_fine_tuning_starts_from_the_averaged_weights_of_a_run(config: TrainConfig, tmp_path: Path) -> None:
    train(config)
    tuned = replace(
        config, out=tmp_path / "tuned", init_from=config.out, steps=1, optimizer=OptimizerConfig(learning_rate=0.0)
    )
    train(tuned)
    averaged = load_file(config.out / "checkpoint" / "ema.safetensors")
    start = load_file(tuned.out / "checkpoint" / "model.safetensors")
    parameters = dict(AIME(config.model).named_parameters())
    assert all(torch.equal(start[name], averaged[name]) for name in parameters)


NEWTON = ActionScale((-3.0, -3.0), (3.0, 3.0))


def write_scaled(path: Path, scale: ActionScale | None, largest: float = 1.0, light: int = 0) -> np.ndarray:
    """Episodes whose actions are in [-largest, largest] of a scale; what they are in the source's units."""
    episodes = [synthetic_episode(20, seed, size=SIZE) for seed in range(4)]
    episodes = [replace(each, pixels=each.pixels // 2 + light, action=each.action * largest) for each in episodes]
    write_shard(path, episodes, {} if scale is None else scale.attributes())
    units = np.concatenate([each.action for each in episodes])
    return units if scale is None else scale.to_source(units)


def test_fine_tuning_keeps_what_an_action_of_the_source_means(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = NEWTON, ActionScale((-2.0, -1.0), (2.0, 1.0))
    write_scaled(tmp_path / "a.h5", first)
    source = write_scaled(tmp_path / "b.h5", second)
    start = replace(config, data=str(tmp_path / "a.h5"), out=tmp_path / "start", steps=1)
    train(start)
    given: list[np.ndarray] = []
    differentiate = JointLearning._differentiate

    def noted(trainer: JointLearning, clips: Clips, *rest: Any) -> Any:
        given.append(clips.actions[clips.action_valid].numpy())
        return differentiate(trainer, clips, *rest)

    monkeypatch.setattr(JointLearning, "_differentiate", noted)
    capsys.readouterr()
    train(replace(config, data=str(tmp_path / "b.h5"), init_from=start.out, steps=3, batch=4))
    train(replace(config, data=str(tmp_path / "b.h5"), resume=True, steps=4, batch=4))
    assert "actions keep the units of" in capsys.readouterr().out
    # an action of 1 in the source is a third of the way from the middle to the end of the first run's range
    expected = source[np.isfinite(source).all(1)] / 3
    read = np.concatenate(given)
    nearest = np.abs(read[:, None] - expected[None]).max(-1).min(1)
    assert len(read) > 40 and nearest.max() < 1e-5
    assert read_run(config.out).action_scale == first


@pytest.mark.parametrize(
    ("scale", "largest", "message"),
    [
        (ActionScale((-5.0, -5.0), (5.0, 5.0)), 1.0, "some lie outside of the run's -3 to 3"),
        (None, 1.0, "does not say in which units its actions are"),
    ],
)
def test_data_in_units_that_a_run_does_not_know_is_refused_before_anything_is_written(
    config: TrainConfig, tmp_path: Path, scale: ActionScale | None, largest: float, message: str
) -> None:
    write_scaled(tmp_path / "a.h5", NEWTON)
    write_scaled(tmp_path / "b.h5", scale, largest)
    start = replace(config, data=str(tmp_path / "a.h5"), out=tmp_path / "start", steps=1)
    train(start)
    with pytest.raises(AimeError, match=message):
        train(replace(config, data=str(tmp_path / "b.h5"), init_from=start.out, steps=1))
    assert not (config.out / "config.yaml").exists()


def test_units_that_the_first_run_does_not_say_are_said_to_be_unknown(tmp_path: Path) -> None:
    write_scaled(tmp_path / "b.h5", NEWTON)
    dataset = open_dataset(tmp_path / "b.h5")
    start = RunInfo(tmp_path, "tiny", small_config(), {})
    same, said = in_action_units_of(start, dataset)
    assert same is dataset and "does not say in which units it learned actions; -1 to 1 is now -3 to 3" in said


def test_a_run_without_units_that_goes_on_with_other_data_says_so(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(config)
    write_scaled(tmp_path / "b.h5", NEWTON)
    capsys.readouterr()
    train(replace(config, data=str(tmp_path / "b.h5"), resume=True, steps=2))
    assert "does not say in which units it learned actions; -1 to 1 is now -3 to 3" in capsys.readouterr().out


def test_fine_tuning_keeps_the_frame_that_the_model_is_centred_on(config: TrainConfig, tmp_path: Path) -> None:
    write_scaled(tmp_path / "dark.h5", None)
    write_scaled(tmp_path / "light.h5", None, light=100)
    start = replace(config, data=str(tmp_path / "dark.h5"), out=tmp_path / "start", steps=1)
    train(start)
    still = OptimizerConfig(learning_rate=0.0)
    train(replace(config, data=str(tmp_path / "light.h5"), init_from=start.out, steps=1, optimizer=still))
    before, after = AIME.from_pretrained(start.out), AIME.from_pretrained(config.out)
    frames = torch.rand(1, 3, 3, SIZE, SIZE)
    torch.testing.assert_close(after.mean_image, before.mean_image, rtol=0, atol=0)
    torch.testing.assert_close(after.encoder.state_dict(), before.encoder.state_dict(), rtol=0, atol=0)
    assert torch.equal(after.centre(frames), before.centre(frames)), "what the model sees of a frame"
    pixels = np.concatenate([each.pixels for each in open_dataset(tmp_path / "light.h5", "train", config.held_out)])
    mean = pixels.astype(np.float64).mean(0).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(after.baseline_image.numpy(), mean, atol=1e-6)


def test_weights_of_before_have_the_mean_image_as_their_baseline(config: TrainConfig) -> None:
    model = AIME(config.model)
    old = {name: tensor.clone() for name, tensor in model.state_dict().items() if name != "baseline_image"}
    old["mean_image"].fill_(0.25)
    fill(model, old, Path("weights"))
    assert (model.baseline_image == 0.25).all() and (model.mean_image == 0.25).all()
