"""Checkpoints: the complete state of training, from which a run resumes bit for bit.

    RUN/checkpoint/model.safetensors              weights and buffers
    RUN/checkpoint/ema.safetensors                averaged weights and buffers, fine-tuned at the end of a run
    RUN/checkpoint/before_finetuning.safetensors  the average before fine-tuning, from which joint learning resumes
    RUN/checkpoint/optimizer.safetensors          the optimizer's tensors, named PARAMETER.KEY (encoder.weight.exp_avg)
    RUN/checkpoint/replay.safetensors             replayed latents of the first rank
    RUN/checkpoint/balancer.safetensors           state of the balancer
    RUN/checkpoint/nonfinite.safetensors          number of skipped steps by cause
    RUN/checkpoint/adversary.safetensors          discriminators, if any
    RUN/checkpoint/critic.safetensors             their optimizer's tensors
    RUN/checkpoint/finetuning_*.safetensors       during dynamics fine-tuning: weights, optimizer, skipped steps,
                                                  cached latents, and clips left out for calibration
    RUN/checkpoint/manifest.json                  copy of RUN/manifest.json: the training data so far
    RUN/checkpoint/state.json                     progress and random states
    RUN/checkpoint/SHA256SUMS                     checksums of all these files, verified on reading

Optimizer settings (learning rate, betas, ...) come from the config, so that a resumed run can change them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from aime.optimization import Balancer
from aime.optimization.optimizer_state import fill_optimizer, optimizer_tensors
from aime.optimization.weight_average import WeightAverage
from aime.primitives.checksums import check_sums
from aime.primitives.randomness import RandomStates
from aime.primitives.ranks import ranks
from aime.primitives.tensor_files import fill, require_finite
from aime.runs.checkpoint_files import STATE, State, read_state, write_checkpoint
from aime.runs.schedule import Progress
from aime.training.adversary import Adversary
from aime.training.dynamics_finetuning import DynamicsFinetuning
from aime.world_model.saved import AVERAGED_WEIGHTS, checkpoint_directory, read_weights

_MODEL, _OPTIMIZER = "model.safetensors", "optimizer.safetensors"
_BEFORE_FINETUNING = "before_finetuning.safetensors"
_REPLAY, _BALANCER, _NONFINITE = "replay.safetensors", "balancer.safetensors", "nonfinite.safetensors"
_ADVERSARY, _CRITIC = "adversary.safetensors", "critic.safetensors"
_FINETUNING = "finetuning_{}.safetensors"
_EARLIER_NAMES = {_BEFORE_FINETUNING: "unsettled.safetensors", _NONFINITE: "guard.safetensors"}


class TrainingState(NamedTuple):
    """Everything that training updates; `restore` fills it in place."""

    model: nn.Module
    average: WeightAverage[Any]
    optimizers: tuple[Optimizer, ...]
    """Of the model's parameters, with settings from the config."""
    replay: nn.Module
    balancer: Balancer
    nonfinite: nn.Module
    adversary: Adversary | None
    finetuning: DynamicsFinetuning | None = None
    """Set during dynamics fine-tuning, once its latents are cached."""
    random: RandomStates | None = None
    """Random states of joint learning while dynamics fine-tuning runs; None: the current ones."""


def save(run: Path, training: TrainingState, progress: Progress) -> None:
    """Write RUN/checkpoint, which replaces the previous one when it is complete on disk.

    Raises:
        AimeError: if the disk is full or the directory cannot be written; the old checkpoint stays.
    """
    write_checkpoint(run, _files(training), State.now(progress, training.average.updates, training.random))


def _files(training: TrainingState) -> dict[str, Mapping[str, Tensor]]:
    """The tensors of every file."""
    average, adversary, finetuning = training.average, training.adversary, training.finetuning
    files: dict[str, Mapping[str, Tensor]] = {
        _MODEL: training.model.state_dict(),
        AVERAGED_WEIGHTS: average.best.state_dict(),
        _OPTIMIZER: optimizer_tensors(training.model, training.optimizers),
        _REPLAY: training.replay.state_dict(),
        _BALANCER: training.balancer.state_dict(),
        _NONFINITE: training.nonfinite.state_dict(),
    }
    if average.finetuned is not None:
        files[_BEFORE_FINETUNING] = average.model.state_dict()
    if adversary is not None:
        files[_ADVERSARY] = adversary.state_dict()
        files[_CRITIC] = optimizer_tensors(adversary, [adversary.optimizer])
    # with several ranks, each has its own latents, which an interrupted run caches again
    if finetuning is not None and ranks() == 1:
        parts = {
            "model": finetuning.model.state_dict(),
            "optimizer": optimizer_tensors(finetuning.model, finetuning.optimizers),
            "nonfinite": finetuning.nonfinite.state_dict(),
            "cache": finetuning.cached.state_dict(),
            "left_out": finetuning.left_out.state_dict(),
        }
        files |= {_FINETUNING.format(part): tensors for part, tensors in parts.items()}
    return files


def restore(run: Path, training: TrainingState) -> Progress:
    """Restore training and random states from the run's last checkpoint.

    With the same config and data, the following steps give the same bits as an uninterrupted run. All ranks read the
    replay and random states of the first.

    Args:
        run: the run directory.
        training: built from the run's config, before its first step. The replay stays empty if its shape in the config
            has changed; balancer, skip counts and adversary keep their initial state if the checkpoint has none.

    Raises:
        AimeError: if there is no checkpoint, or a file is missing, damaged, not finite, or does not fit the model.
    """
    directory = checkpoint_directory(run)
    check_sums(directory)
    state = read_state(directory / STATE)
    weights = read_weights(directory / _MODEL)
    averaged = read_weights(directory / AVERAGED_WEIGHTS)
    moments = read_weights(directory / _OPTIMIZER)
    for name, tensors in ((_MODEL, weights), (AVERAGED_WEIGHTS, averaged), (_OPTIMIZER, moments)):
        require_finite(tensors, directory / name)
    balancer = read_weights(directory / _BALANCER)
    fill(training.model, weights, directory / _MODEL)
    fill(training.average.model, averaged, directory / AVERAGED_WEIGHTS)
    if (before := _find(directory, _BEFORE_FINETUNING)) is not None:
        training.average.finetuned = training.average.copied()
        fill(training.average.model, read_weights(before), before)
    for optimizer in training.optimizers:
        fill_optimizer(training.model, optimizer, moments, directory / _OPTIMIZER)
    _fill_if_shapes_match(training.replay, directory / _REPLAY)
    if (skipped := _find(directory, _NONFINITE)) is not None:
        fill(training.nonfinite, read_weights(skipped), skipped)
    if training.adversary is not None and (directory / _ADVERSARY).exists():
        critic = read_weights(directory / _ADVERSARY)
        critic = {name.replace("guard.", "nonfinite.", 1): tensor for name, tensor in critic.items()}
        fill(training.adversary, critic, directory / _ADVERSARY)
        moments = read_weights(directory / _CRITIC)
        fill_optimizer(training.adversary, training.adversary.optimizer, moments, directory / _CRITIC)
    if balancer:
        training.balancer.load_state_dict(balancer)
    training.average.updates = state.average_updates
    state.set_random_states(directory / STATE)
    return state.progress


def restore_finetuning(run: Path, phase: DynamicsFinetuning) -> bool:
    """Restore an interrupted phase and its random states from the run's last checkpoint.

    Returns:
        False, and the phase starts again, if the checkpoint has no such phase or the cache's shape has changed.

    Raises:
        AimeError: if a file is missing, not finite, or does not fit the model.
    """
    directory = checkpoint_directory(run)
    paths = {part: directory / _FINETUNING.format(part) for part in ("model", "optimizer", "nonfinite", "left_out")}
    cache = directory / _FINETUNING.format("cache")
    if ranks() > 1 or not cache.exists() or not _fill_if_shapes_match(phase.cached, cache):
        return False
    weights, moments = read_weights(paths["model"]), read_weights(paths["optimizer"])
    require_finite(weights, paths["model"])
    require_finite(moments, paths["optimizer"])
    fill(phase.model, weights, paths["model"])
    for optimizer in phase.optimizers:
        fill_optimizer(phase.model, optimizer, moments, paths["optimizer"])
    fill(phase.nonfinite, read_weights(paths["nonfinite"]), paths["nonfinite"])
    fill(phase.left_out, read_weights(paths["left_out"]), paths["left_out"])
    read_state(directory / STATE).set_random_states(directory / STATE, of_phase=True)
    return True


def _find(directory: Path, name: str) -> Path | None:
    """The path of a file under its present or earlier name, if it exists."""
    return next((directory / each for each in (name, _EARLIER_NAMES[name]) if (directory / each).exists()), None)


def _fill_if_shapes_match(replay: nn.Module, path: Path) -> bool:
    """Load a replay buffer and return True; return False if its shape differs from the saved one."""
    saved, own = read_weights(path), replay.state_dict()
    if any(value.shape != saved[name].shape for name, value in own.items() if name in saved):
        return False
    fill(replay, saved, path)
    return True
