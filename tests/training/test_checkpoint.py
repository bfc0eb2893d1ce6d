"""A checkpoint restores training bit for bit, and a kill at any moment leaves a complete checkpoint."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aime.errors import AimeError
from aime.optimization import make_balancer
from aime.optimization.weight_average import WeightAverage
from aime.primitives import files
from aime.runs.checkpoint_files import read_progress
from aime.runs.schedule import JOINT, Progress
from aime.training.checkpoint import TrainingState, restore, save
from aime.training.nonfinite import NonfiniteSteps
from aime.training.optimizers import OptimizerConfig, make_optimizers

FILES = (
    "model.safetensors",
    "ema.safetensors",
    "optimizer.safetensors",
    "replay.safetensors",
    "balancer.safetensors",
    "nonfinite.safetensors",
    "state.json",
    "SHA256SUMS",
)


class Net(nn.Module):
    """Convolution in channels_last, dropout that draws random numbers, a buffer, and a weight that is never used."""

    steps: Tensor

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, width, 3)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(width, 1)
        self.idle = nn.Parameter(torch.ones(2))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.convolution.weight.data = self.convolution.weight.to(memory_format=torch.channels_last)

    def forward(self, frames: Tensor) -> Tensor:
        self.steps += 1
        return self.head(self.dropout(self.convolution(frames)).mean((2, 3)))


class Memory(nn.Module):
    """What a run remembers of its batches: tensors, and a number beside them."""

    def __init__(self, length: int = 6) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(2, 3, length, length))
        self.seen = 0

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.seen)

    def set_extra_state(self, state: Tensor) -> None:
        self.seen = int(state)


class Run:
    """A training in miniature."""

    def __init__(
        self,
        seed: int = 0,
        width: int = 4,
        fused: bool = True,
        rate: float = 1e-2,
        remembered: int = 6,
        balancer: str = "rgb",
    ) -> None:
        torch.manual_seed(seed)
        self.model = Net(width)
        self.average = WeightAverage(self.model, 0.995)
        # the groups' order differs from the model's: nothing may depend on a parameter's number
        groups = [{"params": [p for p in self.model.parameters() if p.ndim == n]} for n in (1, 2, 4)]
        self.optimizer = torch.optim.AdamW(groups, lr=rate, fused=fused)
        self.replay = Memory(remembered)
        self.balancer = make_balancer(balancer, self.model.named_parameters())
        self.progress = Progress()

    def train(self, steps: int) -> Run:
        for _ in range(steps):
            self.optimizer.zero_grad(set_to_none=True)
            batch = torch.randn(2, 3, 6, 6)
            first, second = self.model(batch), self.model(self.replay.last)
            self.balancer.backward({"apart": (first - second).square().mean(), "small": first.square().mean()})
            self.replay.last, self.replay.seen = batch, self.replay.seen + 2
            self.optimizer.step()
            self.average.update(self.model)
            self.progress = self.progress.after_step(JOINT, 2, self.progress.seconds + 0.1)
        return self

    def save(self, run: Path) -> Run:
        save(run, self.trained(), self.progress)
        return self

    def restore(self, run: Path) -> Run:
        self.progress = restore(run, self.trained())
        return self

    def trained(self) -> TrainingState:
        return TrainingState(
            self.model, self.average, (self.optimizer,), self.replay, self.balancer, NonfiniteSteps(), adversary=None
        )

    def everything(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"replay.{name}": value for name, value in self.replay.state_dict().items()}
        tensors |= {f"balancer.{name}": value for name, value in self.balancer.state_dict().items()}
        tensors |= {f"ema.{name}": value for name, value in self.average.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            tensors |= {f"{name}.{key}": value for key, value in self.optimizer.state.get(parameter, {}).items()}
        return {**tensors, "random": torch.get_rng_state()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different


@pytest.mark.parametrize("fused", [True, False])
def test_stopping_and_going_on_gives_the_same_bits(tmp_path: Path, fused: bool) -> None:
    whole = Run(fused=fused).train(7)
    expected = {name: value.clone() for name, value in whole.everything().items()}
    Run(fused=fused).train(3).save(tmp_path)
    resumed = Run(seed=5, fused=fused).restore(tmp_path)
    assert (resumed.progress.step, resumed.progress.frames) == (3, 6)
    assert_same(expected, resumed.train(4).everything())
    assert resumed.average.updates == whole.average.updates == 7
    assert resumed.progress == whole.progress


def test_moments_come_back_in_the_memory_format_of_their_weights(tmp_path: Path) -> None:
    Run().train(1).save(tmp_path)
    resumed = Run().restore(tmp_path)
    weight = resumed.model.convolution.weight
    moment = resumed.optimizer.state[weight]["exp_avg"]
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert moment.stride() == weight.stride()


def test_the_files_are_safetensors_by_parameter_name_and_plain_json(tmp_path: Path) -> None:
    Run().train(2).save(tmp_path)
    assert sorted(each.name for each in (tmp_path / "checkpoint").iterdir()) == sorted(FILES)
    with safe_open(tmp_path / "checkpoint" / "optimizer.safetensors", "pt") as file:
        names = set(file.keys())
    assert {"head.weight.exp_avg", "head.weight.exp_avg_sq", "head.weight.step"} <= names
    assert not any(name.startswith("idle") for name in names)
    state = json.loads((tmp_path / "checkpoint" / "state.json").read_text())
    assert (state["step"], state["frames"], state["format"], state["average_updates"]) == (2, 4, 1, 2)


def test_settings_of_the_optimizer_come_from_the_config(tmp_path: Path) -> None:
    Run(rate=1e-2).train(1).save(tmp_path)
    assert {group["lr"] for group in Run(rate=5e-3).restore(tmp_path).optimizer.param_groups} == {5e-3}


@pytest.mark.parametrize("kinds", [("muon", "adamw"), ("adamw", "muon")])
def test_another_kind_of_optimizer_starts_afresh(
    tmp_path: Path, kinds: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aime.training.optimizers._MIN_MUON_SIZE", 2)

    def optimizers(model: nn.Module, kind: str) -> tuple[torch.optim.Optimizer, ...]:
        return make_optimizers(model, OptimizerConfig(kind=kind))  # type: ignore[arg-type]

    before, after = Run(), Run()
    saved = before.trained()._replace(optimizers=optimizers(before.model, kinds[0]))
    before.model(torch.randn(2, 3, 6, 6)).sum().backward()
    for optimizer in saved.optimizers:
        optimizer.step()
    save(tmp_path, saved, Progress(1, 2, 0.1))
    resumed = after.trained()._replace(optimizers=optimizers(after.model, kinds[1]))
    restore(tmp_path, resumed)
    states = {parameter: each for optimizer in resumed.optimizers for parameter, each in optimizer.state.items()}
    assert after.model.convolution.weight not in states
    torch.testing.assert_close(
        states[after.model.head.bias]["exp_avg"], saved.optimizers[0].state[before.model.head.bias]["exp_avg"]
    )
    after.model(torch.randn(2, 3, 6, 6)).sum().backward()
    for optimizer in resumed.optimizers:
        optimizer.step()


def test_a_checkpoint_before_the_first_step(tmp_path: Path) -> None:
    fresh = Run().save(tmp_path)
    resumed = Run(seed=3).restore(tmp_path)
    assert not resumed.optimizer.state
    assert_same(fresh.train(2).everything(), Run(seed=3).restore(tmp_path).train(2).everything())


def test_random_states_of_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = [torch.arange(16, dtype=torch.uint8), torch.arange(16, 32, dtype=torch.uint8)]
    seen: list[list[Tensor]] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", seen.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    Run().save(tmp_path)
    Run().restore(tmp_path)
    assert len(seen) == 1
    assert all(torch.equal(one, other) for one, other in zip(seen[0], states, strict=True))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    Run().restore(tmp_path)  # another machine: its generators are left alone
    assert len(seen) == 1


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the code under test may catch it."""


def _killing(function: Callable[..., Any], at: int, before: bool) -> Callable[..., Any]:
    """A function that dies at its call number `at`, before or after having done its work."""
    calls = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at and before:
            raise Killed
        result = function(*arguments, **options)
        if calls == at:
            raise Killed
        return result

    return call


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("moment", range(1, 11))  # eight files, then old out of the way, then new into its place
@pytest.mark.parametrize("cleaning", [True, False])  # a kill leaves no time for clean-up either
def test_a_kill_around_any_rename_leaves_a_complete_checkpoint(
    tmp_path: Path, moment: int, before: bool, cleaning: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system that cannot exchange two directories."""
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    run = Run().train(1).save(tmp_path)
    old = {name: value.clone() for name, value in run.everything().items()}
    run.train(1)
    new = {name: value.clone() for name, value in run.everything().items()}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "replace", _killing(os.replace, moment, before))
        if not cleaning:
            patch.setattr(shutil, "rmtree", lambda *arguments, **options: None)
        run.save(tmp_path)
    survivor = Run(seed=9).restore(tmp_path)
    swapped = moment == 10 and not before
    assert survivor.progress.step == (2 if swapped else 1)
    assert_same(new if swapped else old, survivor.everything())
    survivor.train(2).save(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["checkpoint"]
    assert Run().restore(tmp_path).progress.step == survivor.progress.step


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_a_kill_while_old_files_are_removed(tmp_path: Path, moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removal of what a former kill left behind happens first, then again after the renames."""
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    run = Run().train(1).save(tmp_path)
    shutil.copytree(tmp_path / "checkpoint", tmp_path / "checkpoint.old")
    (tmp_path / "checkpoint.tmp-1").mkdir()
    run.train(1)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(shutil, "rmtree", _killing(shutil.rmtree, moment, before=True))
        run.save(tmp_path)
    assert Run().restore(tmp_path).progress.step == (2 if moment == 3 else 1)
    run.train(1).save(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["checkpoint"]
    assert Run().restore(tmp_path).progress.step == 3


@pytest.mark.parametrize("moment", range(1, 9))
def test_a_full_disk_keeps_the_old_checkpoint(tmp_path: Path, moment: int) -> None:
    run = Run().train(1).save(tmp_path)
    calls = 0
    replace = os.replace

    def full(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == moment:
            raise OSError(28, "No space left on device")
        replace(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(AimeError, match="cannot be written: No space left on device; free some space"):
            run.train(1).save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert Run().restore(tmp_path).progress.step == 1


def test_another_shape_of_the_replay_starts_with_an_empty_one(tmp_path: Path) -> None:
    Run().train(2).save(tmp_path)
    resumed = Run(remembered=5).restore(tmp_path)
    assert (resumed.progress.step, resumed.replay.seen) == (2, 0)


def _unsum(run: Path) -> Path:
    """Without checksums, as earlier versions wrote it."""
    (run / "checkpoint" / "SHA256SUMS").unlink()
    return run / "checkpoint"


def _change_state(run: Path, **changes: object) -> None:
    path = _unsum(run) / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _rename_tensor(path: Path, before: str, after: str) -> None:
    save_file({name.replace(before, after): value for name, value in load_file(path).items()}, path)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "none": (lambda run: shutil.rmtree(run / "checkpoint"), "no checkpoint yet"),
    "no state": (lambda run: (run / "checkpoint" / "state.json").unlink(), "state.json: cannot be read"),
    "torn state": (lambda run: (_unsum(run) / "state.json").write_text('{"format": 1'), "state.json: not JSON"),
    "foreign state": (lambda run: (_unsum(run) / "state.json").write_text("[]"), "format: found None"),
    "later format": (lambda run: _change_state(run, format=2), "format: found 2, expected 1"),
    "wrong type": (lambda run: _change_state(run, step="3"), "step: found '3' .str., expected an integer"),
    "bad base64": (lambda run: _change_state(run, cpu_random_state="!"), "random states"),
    "short generator": (lambda run: _change_state(run, cpu_random_state="AAAA"), "random states"),
    "no weights": (lambda run: (run / "checkpoint" / "model.safetensors").unlink(), "model.safetensors: missing"),
    "torn weights": (lambda run: os.truncate(_unsum(run) / "ema.safetensors", 200), "ema.safetensors: trunc"),
    "foreign moments": (
        lambda run: _rename_tensor(_unsum(run) / "optimizer.safetensors", "head", "tail"),
        "the model has no parameter 'tail",
    ),
    "foreign weights": (
        lambda run: _rename_tensor(_unsum(run) / "model.safetensors", "head", "tail"),
        "'head.(weight|bias)': missing",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_damage_is_one_line_that_names_the_file(tmp_path: Path, name: str) -> None:
    damage, message = BAD[name]
    Run().train(1).save(tmp_path)
    damage(tmp_path)
    with pytest.raises(AimeError, match=message) as caught:
        Run().restore(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bit_that_flips_anywhere_is_found_and_its_file_named(tmp_path: Path) -> None:
    Run().train(2).save(tmp_path)
    generator = random.Random(0)
    paths = sorted((tmp_path / "checkpoint").iterdir())
    for path in [*paths, *generator.choices(paths, k=40)]:
        content = path.read_bytes()
        place, bit = generator.randrange(len(content)), generator.randrange(8)
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        with pytest.raises(AimeError, match="damaged") as caught:
            Run().restore(tmp_path)
        if path.name != "SHA256SUMS":  # a digest there that has changed blames the file that it is of
            assert str(caught.value).startswith(f"{path}: ")
        path.write_bytes(content)
    Run().restore(tmp_path)


def test_the_checksums_are_those_of_coreutils(tmp_path: Path) -> None:
    Run().train(1).save(tmp_path)
    checked = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "checkpoint")
    assert checked.returncode == 0


def test_a_checkpoint_of_before_has_no_checksums_and_is_read(tmp_path: Path) -> None:
    Run().train(2).save(tmp_path)
    _unsum(tmp_path)
    assert Run().restore(tmp_path).progress.step == 2


@pytest.mark.parametrize("file", ["model", "ema", "optimizer"])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, file: str) -> None:
    Run().train(1).save(tmp_path)
    path = _unsum(tmp_path) / f"{file}.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.startswith("head.weight"))
    save_file({**tensors, name: torch.full_like(tensors[name], torch.nan)}, path)
    with pytest.raises(AimeError, match=rf"{file}.safetensors: tensor 'head.weight.*': found NaN or infinity"):
        Run().restore(tmp_path)


def test_a_reader_never_sees_a_checkpoint_in_the_making(tmp_path: Path) -> None:
    """Two hundred looks while another thread saves without a pause: each finds a whole one, newer than the last."""
    run = Run().train(1).save(tmp_path)
    stop = threading.Event()

    def saving() -> None:
        while not stop.is_set():
            run.progress = run.progress._replace(step=run.progress.step + 1)
            run.save(tmp_path)

    writer = threading.Thread(target=saving)
    writer.start()
    try:
        steps = [read_progress(tmp_path).step for _ in range(200)]
    finally:
        stop.set()
        writer.join()
    assert steps == sorted(steps)


def test_another_size_of_model(tmp_path: Path) -> None:
    Run(width=4).train(1).save(tmp_path)
    with pytest.raises(AimeError, match=r"'convolution.weight': found \[4, 3, 3, 3\] float32, expected \[5, 3, 3, 3\]"):
        Run(width=5).restore(tmp_path)


def test_moments_of_another_size(tmp_path: Path) -> None:
    Run().train(1).save(tmp_path)
    path = _unsum(tmp_path) / "optimizer.safetensors"
    save_file({**load_file(path), "head.bias.exp_avg": torch.zeros(7)}, path)
    with pytest.raises(AimeError, match=r"'head.bias.exp_avg': found shape \[7\], expected \[1\]"):
        Run().restore(tmp_path)
