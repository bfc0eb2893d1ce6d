"""Checkpoints: everything that a run needs to go on as if it had never stopped.

    RUN/checkpoint/model.safetensors              weights and buffers
    RUN/checkpoint/ema.safetensors                averaged weights and buffers, fine-tuned at the end of a run
    RUN/checkpoint/before_finetuning.safetensors  the average before that, for joint learning to go on from
    RUN/checkpoint/optimizer.safetensors          the optimizer's tensors, named PARAMETER.KEY (encoder.weight.exp_avg)
    RUN/checkpoint/replay.safetensors             the latents remembered, of several ranks those of the first
    RUN/checkpoint/balancer.safetensors           what the balancer carries from step to step
    RUN/checkpoint/nonfinite.safetensors          how many steps were skipped, and why
    RUN/checkpoint/adversary.safetensors          the discriminators, and
    RUN/checkpoint/critic.safetensors             their optimizer's tensors, where there are discriminators
    RUN/checkpoint/finetuning_*.safetensors       while the dynamics are fine-tuned: weights, optimizer, skipped steps,
                                                  cached latents, and clips left out for calibration
    RUN/checkpoint/manifest.json                  what was trained on until then, as RUN/manifest.json
    RUN/checkpoint/state.json                     progress and random-number states
    RUN/checkpoint/SHA256SUMS                     of all these files, compared when they are read

The optimizer's settings (learning rate, betas, ...) are not among them: they belong to the config, so that changing one
on resume has its effect. See `aime.runs.checkpoint_files` for how they are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from aime.optimization import Balancer
from aime.primitives.checksums import check_sums
from aime.primitives.randomness import RandomStates
from aime.primitives.ranks import ranks
from aime.primitives.tensor_files import fill, require_finite
from aime.runs.checkpoint_files import STATE, State, read_state, write_checkpoint
from aime.runs.schedule import Progress
from aime.training.adversary import Adversary
from aime.training.average import WeightAverage
from aime.training.dynamics_finetuning import DynamicsFinetuning
from aime.training.optimizers import fill_optimizer, optimizer_tensors
from aime.world_model.saved import AVERAGED_WEIGHTS, checkpoint_directory, read_weights

_MODEL, _OPTIMIZER = "model.safetensors", "optimizer.safetensors"
_BEFORE_FINETUNING = "before_finetuning.safetensors"
_REPLAY, _BALANCER, _NONFINITE = "replay.safetensors", "balancer.safetensors", "nonfinite.safetensors"
_ADVERSARY, _CRITIC = "adversary.safetensors", "critic.safetensors"
_FINETUNING = "finetuning_{}.safetensors"
_EARLIER_NAMES = {_BEFORE_FINETUNING: "unsettled.safetensors", _NONFINITE: "guard.safetensors"}


class Trained(NamedTuple):
    """All that training updates; `restore` fills it in place."""

    model: nn.Module
    average: WeightAverage[Any]
    """Of `model`."""
    optimizers: tuple[Optimizer, ...]
    """Of the model's parameters; they keep their own settings."""
    replay: nn.Module
    balancer: Balancer
    nonfinite: nn.Module
    adversary: Adversary | None
    """None where the run has no adversarial task."""
    finetuning: DynamicsFinetuning | None = None
    """Once its latents are cached, until it is over."""
    random: RandomStates | None = None
    """Of joint learning, while another phase draws numbers of its own; None for the present ones."""


def save(run: Path, trained: Trained, progress: Progress) -> None:
    """Write RUN/checkpoint; the one before is replaced when the new one is complete on the disk.

    Raises:
        AimeError: if the disk is full or the directory cannot be written; the old checkpoint stays.
    """
    write_checkpoint(run, _files(trained), State.now(progress, trained.average.updates, trained.random))


def _files(trained: Trained) -> dict[str, Mapping[str, Tensor]]:
    """The tensors of every file."""
    average, adversary, finetuning = trained.average, trained.adversary, trained.finetuning
    files: dict[str, Mapping[str, Tensor]] = {
        _MODEL: trained.model.state_dict(),
        AVERAGED_WEIGHTS: average.best.state_dict(),
        _OPTIMIZER: optimizer_tensors(trained.model, trained.optimizers),
        _REPLAY: trained.replay.state_dict(),
        _BALANCER: trained.balancer.state_dict(),
        _NONFINITE: trained.nonfinite.state_dict(),
    }
    if average.finetuned is not None:
        files[_BEFORE_FINETUNING] = average.model.state_dict()
    if adversary is not None:
        files[_ADVERSARY] = adversary.state_dict()
        files[_CRITIC] = optimizer_tensors(adversary, [adversary.optimizer])
    # each of several ranks has latents of its own: after an interruption they are cached again
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


def restore(run: Path, trained: Trained) -> Progress:
    """Bring what is trained, and the random numbers, to where the run's last checkpoint left them.

    With the same config and data, the steps that follow give the same bits as if the run had not stopped. Of several
    ranks all take the replay and the random numbers of the first.

    Args:
        run: the run directory.
        trained: built from the run's config, no step taken yet. The replay is left empty where the config now asks for
            another shape than the run's; balancer, counts of skipped steps and adversary start again where the run had
            none to carry on.

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
    carried = read_weights(directory / _BALANCER)
    fill(trained.model, weights, directory / _MODEL)
    fill(trained.average.model, averaged, directory / AVERAGED_WEIGHTS)
    if (before := _found(directory, _BEFORE_FINETUNING)) is not None:
        trained.average.finetuned = trained.average.copied()
        fill(trained.average.model, read_weights(before), before)
    for optimizer in trained.optimizers:
        fill_optimizer(trained.model, optimizer, moments, directory / _OPTIMIZER)
    _fill_if_it_fits(trained.replay, directory / _REPLAY)
    if (skipped := _found(directory, _NONFINITE)) is not None:
        fill(trained.nonfinite, read_weights(skipped), skipped)
    if trained.adversary is not None and (directory / _ADVERSARY).exists():
        critic = read_weights(directory / _ADVERSARY)
        critic = {name.replace("guard.", "nonfinite.", 1): tensor for name, tensor in critic.items()}
        fill(trained.adversary, critic, directory / _ADVERSARY)
        moments = read_weights(directory / _CRITIC)
        fill_optimizer(trained.adversary, trained.adversary.optimizer, moments, directory / _CRITIC)
    if carried:
        trained.balancer.load_state_dict(carried)
    trained.average.updates = state.average_updates
    state.set_random_states(directory / STATE)
    return state.progress


def restore_finetuning(run: Path, phase: DynamicsFinetuning) -> bool:
    """Bring a phase, and the random numbers, to where the checkpoint that was restored left them.

    Returns:
        Whether that is in the midst of the phase. If not, or if the config now asks for another cache, it starts again.

    Raises:
        AimeError: if a file is missing, not finite, or does not fit the model.
    """
    directory = checkpoint_directory(run)
    paths = {part: directory / _FINETUNING.format(part) for part in ("model", "optimizer", "nonfinite", "left_out")}
    cache = directory / _FINETUNING.format("cache")
    if ranks() > 1 or not cache.exists() or not _fill_if_it_fits(phase.cached, cache):
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


def _found(directory: Path, name: str) -> Path | None:
    """A file under its name, or the one that earlier versions gave it."""
    return next((directory / each for each in (name, _EARLIER_NAMES[name]) if (directory / each).exists()), None)


def _fill_if_it_fits(replay: nn.Module, path: Path) -> bool:
    """Fill a memory, unless it has another shape than the saved one."""
    saved, own = read_weights(path), replay.state_dict()
    if any(value.shape != saved[name].shape for name, value in own.items() if name in saved):
        return False
    fill(replay, saved, path)
    return True
