"""Checkpoints: everything that a run needs to go on as if it had never stopped.

    RUN/checkpoint/model.safetensors      weights and buffers
    RUN/checkpoint/ema.safetensors        averaged weights and buffers, settled at the end of a run
    RUN/checkpoint/unsettled.safetensors  the average before it settled, where it has, for the run to go on from
    RUN/checkpoint/optimizer.safetensors  the optimizer's tensors, named PARAMETER.KEY (encoder.weight.exp_avg)
    RUN/checkpoint/replay.safetensors     the latents remembered, of several ranks those of the first
    RUN/checkpoint/balancer.safetensors   what the balancer carries from step to step
    RUN/checkpoint/guard.safetensors      how many steps were skipped, and why
    RUN/checkpoint/adversary.safetensors  the discriminators, and
    RUN/checkpoint/critic.safetensors     their optimizer's tensors, where there are discriminators
    RUN/checkpoint/manifest.json          what was trained on until then, as RUN/manifest.json
    RUN/checkpoint/state.json             progress and random-number states
    RUN/checkpoint/SHA256SUMS             of all these files, compared when they are read

Nothing in them can execute code. The optimizer's settings (learning rate, betas, ...) are not among them: they belong
to the config, so that changing one on resume has its effect.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from aime.data.manifest import MANIFEST
from aime.errors import AimeError, one_line
from aime.optimization import Balancer, Muon
from aime.primitives.checksums import check_sums, write_sums
from aime.primitives.files import read_small, replace_directory, sync_directory, unwritable, write_atomically
from aime.primitives.plain import from_plain, to_plain
from aime.training.adversary import Adversary
from aime.training.average import WeightAverage
from aime.world_model.saved import (
    AVERAGED_WEIGHTS,
    checkpoint_directory,
    fill,
    read_checkpoint,
    read_tensors,
    require_finite,
    save_weights,
)

FORMAT = 1
"""Raised when a checkpoint of the version before can no longer be read."""

_MODEL, _OPTIMIZER, _STATE = "model.safetensors", "optimizer.safetensors", "state.json"
_UNSETTLED = "unsettled.safetensors"
_REPLAY, _BALANCER, _GUARD = "replay.safetensors", "balancer.safetensors", "guard.safetensors"
_LONGEST_STATE = 2**24
_ADVERSARY, _CRITIC = "adversary.safetensors", "critic.safetensors"


class Trained(NamedTuple):
    """All that training updates; `restore` fills it in place."""

    model: nn.Module
    average: WeightAverage
    """Of `model`."""
    optimizers: tuple[Optimizer, ...]
    """Of the model's parameters; they keep their own settings."""
    replay: nn.Module
    balancer: Balancer
    guard: nn.Module
    adversary: Adversary | None
    """None where the run has no adversarial task."""


class Progress(NamedTuple):
    """How far a run has come."""

    step: int = 0
    """Optimizer steps taken."""
    frames: int = 0
    """Frames trained on."""
    seconds: float = 0.0
    """Wall time of training, over all resumptions."""


@dataclass(frozen=True)
class _State:
    """The contents of state.json."""

    format: int
    aime: str
    step: int
    frames: int
    seconds: float
    average_updates: int
    cpu_random_state: str
    """Base64, like those of the GPUs."""
    cuda_random_states: tuple[str, ...]


def save(run: Path, trained: Trained, progress: Progress) -> None:
    """Write RUN/checkpoint, replacing the one before only when the new one is complete on the disk.

    Whoever kills the writer, at whatever moment, leaves either the old or the new checkpoint for `restore`.

    Raises:
        AimeError: if the disk is full or the directory cannot be written; the old checkpoint stays.
    """
    for leftover in run.glob("checkpoint.tmp-*"):  # no other process writes here: see `only_writer`
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = run / f"checkpoint.tmp-{os.getpid()}"
    try:
        save_weights(trained.model.state_dict(), temporary / _MODEL)
        save_weights(trained.average.best.state_dict(), temporary / AVERAGED_WEIGHTS)
        if trained.average.settled is not None:
            save_weights(trained.average.model.state_dict(), temporary / _UNSETTLED)
        save_weights(_optimizer_tensors(trained.model, trained.optimizers), temporary / _OPTIMIZER)
        save_weights(trained.replay.state_dict(), temporary / _REPLAY)
        save_weights(trained.balancer.state_dict(), temporary / _BALANCER)
        save_weights(trained.guard.state_dict(), temporary / _GUARD)
        if trained.adversary is not None:
            save_weights(trained.adversary.state_dict(), temporary / _ADVERSARY)
            save_weights(_optimizer_tensors(trained.adversary, [trained.adversary.optimizer]), temporary / _CRITIC)
        state = json.dumps(to_plain(_state(trained.average, progress)), indent=1)
        write_atomically(temporary / _STATE, state.encode())
        if (run / MANIFEST).exists():
            write_atomically(temporary / MANIFEST, (run / MANIFEST).read_bytes())
        write_sums(temporary, [path.name for path in temporary.iterdir()])
        sync_directory(temporary)
        replace_directory(temporary, run / "checkpoint")
    except OSError as error:
        raise unwritable(run / "checkpoint", error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_progress(run: Path) -> Progress:
    """How far a run's last checkpoint is; reads no weights.

    Raises:
        AimeError: if there is no checkpoint, or its state is damaged.
    """
    state = read_checkpoint(run, lambda directory: _read_state(directory / _STATE), [_STATE])
    return Progress(state.step, state.frames, state.seconds)


def restore(run: Path, trained: Trained) -> Progress:
    """Bring what is trained, and the random numbers, to where the run's last checkpoint left them.

    With the same config and data, the steps that follow give the same bits as if the run had not stopped. Of several
    ranks all take the replay and the random numbers of the first.

    Args:
        run: the run directory.
        trained: built from the run's config, no step taken yet. The replay is left empty where the config now asks for
            another shape than the run's; balancer, guard and adversary start again where the run had none to carry on.

    Raises:
        AimeError: if there is no checkpoint, or a file is missing, damaged, not finite, or does not fit the model.
    """
    directory = checkpoint_directory(run)
    check_sums(directory)
    state = _read_state(directory / _STATE)
    weights = read_tensors(directory / _MODEL)
    averaged = read_tensors(directory / AVERAGED_WEIGHTS)
    unsettled = read_tensors(directory / _UNSETTLED) if (directory / _UNSETTLED).exists() else None
    moments = read_tensors(directory / _OPTIMIZER)
    for name, tensors in ((_MODEL, weights), (AVERAGED_WEIGHTS, averaged), (_OPTIMIZER, moments)):
        require_finite(tensors, directory / name)
    remembered = read_tensors(directory / _REPLAY)
    carried = read_tensors(directory / _BALANCER)
    replay = trained.replay.state_dict()
    fill(trained.model, weights, directory / _MODEL)
    fill(trained.average.model, averaged, directory / AVERAGED_WEIGHTS)
    if unsettled is not None:
        trained.average.copy_to_settle()
        fill(trained.average.model, unsettled, directory / _UNSETTLED)
    for optimizer in trained.optimizers:
        _fill_optimizer(trained.model, optimizer, moments, directory / _OPTIMIZER)
    if all(value.shape == remembered[name].shape for name, value in replay.items() if name in remembered):
        fill(trained.replay, remembered, directory / _REPLAY)
    if (directory / _GUARD).exists():
        fill(trained.guard, read_tensors(directory / _GUARD), directory / _GUARD)
    if trained.adversary is not None and (directory / _ADVERSARY).exists():
        fill(trained.adversary, read_tensors(directory / _ADVERSARY), directory / _ADVERSARY)
        moments = read_tensors(directory / _CRITIC)
        _fill_optimizer(trained.adversary, trained.adversary.optimizer, moments, directory / _CRITIC)
    if carried:
        trained.balancer.load_state_dict(carried)
    trained.average.updates = state.average_updates
    _set_random_states(state, directory / _STATE)
    return Progress(state.step, state.frames, state.seconds)


def _optimizer_tensors(model: nn.Module, optimizers: Iterable[Optimizer]) -> dict[str, Tensor]:
    """The optimizers' tensors by parameter name and key; parameters that never had a gradient have none."""
    tensors = {}
    for (name, parameter), optimizer in itertools.product(model.named_parameters(), optimizers):
        for key, value in optimizer.state.get(parameter, {}).items():
            assert isinstance(value, Tensor), f"{name}.{key} is a {type(value).__name__}, not a tensor"
            tensors[f"{name}.{key}"] = value
    return tensors


def _fill_optimizer(model: nn.Module, optimizer: Optimizer, tensors: dict[str, Tensor], path: Path) -> None:
    """Give an optimizer the tensors of its weights; those of another kind of optimizer are left out."""
    parameters = dict(model.named_parameters())
    states: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        owner, _, key = name.rpartition(".")
        if owner not in parameters:
            raise AimeError(f"{path}: '{name}': the model has no parameter '{owner}'; expected the run's own optimizer")
        states.setdefault(owner, {})[key] = _like(parameters[owner], tensor, name, path)
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    index = {id(parameter): number for number, parameter in enumerate(order)}
    by_number = {
        index[id(parameters[owner])]: state
        for owner, state in states.items()
        if id(parameters[owner]) in index and ("momentum" in state) == isinstance(optimizer, Muon)
    }
    # load_state_dict also sets the groups' settings; giving it the present ones keeps them
    optimizer.load_state_dict({"state": by_number, "param_groups": optimizer.state_dict()["param_groups"]})


def _like(parameter: Tensor, tensor: Tensor, name: str, path: Path) -> Tensor:
    """The tensor in its parameter's memory format, as the optimizer itself would have made it; counters as they are."""
    if tensor.ndim == 0:
        return tensor
    if tensor.shape != parameter.shape:
        found, expected = list(tensor.shape), list(parameter.shape)
        raise AimeError(f"{path}: '{name}': found shape {found}, expected {expected}; resume with the run's config")
    return torch.empty_like(parameter, dtype=tensor.dtype, device="cpu", requires_grad=False).copy_(tensor)


def _state(average: WeightAverage, progress: Progress) -> _State:
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return _State(
        format=FORMAT,
        aime=_version(),
        step=progress.step,
        frames=progress.frames,
        seconds=progress.seconds,
        average_updates=average.updates,
        cpu_random_state=_encode(torch.get_rng_state()),
        cuda_random_states=tuple(_encode(each) for each in devices),
    )


def _read_state(path: Path) -> _State:
    try:
        content = json.loads(read_small(path, _LONGEST_STATE))
    except AimeError:
        raise
    except (ValueError, RecursionError) as error:
        raise AimeError(f"{path}: not JSON ({error}); restore the checkpoint or train again") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise AimeError(f"{path}: format: found {found!r}, expected {FORMAT}; use the aime version that wrote it")
    return from_plain(_State, content, str(path))


def _set_random_states(state: _State, path: Path) -> None:
    """GPU states only where there are as many GPUs: a run may go on on another machine."""
    try:
        torch.set_rng_state(_decode(state.cpu_random_state))
        if torch.cuda.is_initialized() and len(state.cuda_random_states) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([_decode(each) for each in state.cuda_random_states])
    except (ValueError, RuntimeError) as error:
        problem = one_line(error)
        raise AimeError(f"{path}: random states: {problem}; restore the checkpoint or train again") from error


def _encode(state: Tensor) -> str:
    return base64.b64encode(state.cpu().numpy().tobytes()).decode("ascii")


def _decode(state: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(state, validate=True)), dtype=torch.uint8)


def _version() -> str:
    try:
        return version("aime")
    except PackageNotFoundError:  # run from the source tree
        return "source"
