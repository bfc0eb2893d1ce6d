"""The training loop: clips in, one balanced gradient step each, checkpoints and logs out."""

from __future__ import annotations

import itertools
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from aime.data import Clips, ClipSampler, Dataset, prefetch
from aime.data.clips import reading_threads
from aime.errors import AimeError
from aime.objectives.ledger import TaskLoss, mean_losses
from aime.objectives.tasks import task_losses
from aime.optimization import Balance, make_balancer
from aime.primitives.cuda_graphs import GraphedWork
from aime.primitives.quantize import codebook_perplexity
from aime.primitives.randomness import apart
from aime.primitives.ranks import first_rank_s, rank, ranks, share_from_first_rank, total_on_host, true_on_any_rank
from aime.primitives.signals import Interruption, handled
from aime.representation.divergences import effective_components
from aime.training import run_directory
from aime.training.adversary import Adversary
from aime.training.augmentation import zoom
from aime.training.average import WeightAverage
from aime.training.checkpoint import Progress, Trained, read_progress, restore, save
from aime.training.compiling import compiled
from aime.training.config import TrainConfig
from aime.training.guard import MOST_IN_A_ROW, Guard
from aime.training.hardware import Hardware, choose_hardware, keep_freed_memory
from aime.training.logbook import Logbook
from aime.training.optimizers import make_optimizers, scale_learning_rates
from aime.training.outcomes import outcomes_of
from aime.training.pictures import log_picture
from aime.training.processes import process_group, seed_noise
from aime.training.replay import LatentReplay
from aime.training.run_data import RunData, open_run_data, record_settling
from aime.training.schedule import Budget, learning_rate_factor
from aime.training.settling import Settling
from aime.world_model import input_validation
from aime.world_model.model import AIME
from aime.world_model.outputs import SequenceOutput
from aime.world_model.parts import part_of
from aime.world_model.saved import (
    AVERAGED_WEIGHTS,
    build_for,
    checkpoint_directory,
    has_checkpoint,
    load_model,
    read_run,
)

_FIRST_SAVE_SECONDS = 60.0
"""After which a run has a first checkpoint to go on from, however long `checkpoint_every` steps take."""

_PERCEIVING = 0.35
"""The most of settling's time that goes into perceiving, where a run counts minutes."""


@dataclass(frozen=True)
class TrainResult:
    """What a run came to."""

    run: Path
    step: int
    seconds: float
    """Wall time of training, over all resumptions."""
    signal: int | None = None
    """The number of the signal that ended it before its time."""

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended it before its time."""
        return self.signal is not None


class StepResult(NamedTuple):
    """What one step leaves behind for the log; tensors, so that nothing waits for the device."""

    losses: tuple[TaskLoss, ...]
    """Of the model's tasks that are not off, each the mean over the accumulated batches; the adversarial one once the
    model listens to it."""
    critic: TaskLoss | None
    """The discriminators' own loss, where they took a step."""
    gradient_norm: Tensor
    balance: Balance | None
    """Norms, angles and cosines of the tasks' gradients, where the balancer knows them."""
    tokens: Int[Tensor, "N h w"]
    """Of all frames of the accumulated batches that are not padding or are: `valid` tells."""
    log_weights: Float[Tensor, "N K"]
    """Of the prior's components, likewise."""
    valid: Bool[Tensor, " N"]


class StepKind(NamedTuple):
    """What some steps do and others do not, as far as the host decides it."""

    heard: bool
    """The model listens to the discriminators."""
    judged: bool
    """The discriminators learn."""


class Trainer:
    """Everything that a run updates, and the step that updates it."""

    def __init__(self, config: TrainConfig, model: AIME, hardware: Hardware) -> None:
        self.config, self.hardware = config, hardware
        self.model = model.to(hardware.device).train()
        share_from_first_rank([*self.model.parameters(), *self.model.buffers()])
        self.balancer = make_balancer(config.balancer, self.model.named_parameters(), config.rgb, part_of)
        self.average = WeightAverage(self.model, config.optimizer.ema_decay)
        self.optimizers = make_optimizers(self.model, config.optimizer)
        self.replay = LatentReplay(config.replay, config.length, config.model).to(hardware.device)
        self.forward = compiled(self.model.run_sequence) if config.compile else self.model.run_sequence
        self.adversary: Adversary | None = None
        if config.adversary.enabled:
            self.adversary = Adversary(config.adversary, config.weights.adversarial).to(hardware.device)
            share_from_first_rank([*self.adversary.parameters(), *self.adversary.buffers()])
        self.guard = Guard().to(hardware.device)
        self._ramp = torch.zeros((), device=hardware.device)
        self._compute: Callable[[StepKind, list[Clips]], StepResult] = self._computed
        if config.cuda_graphs and hardware.device.type == "cuda" and ranks() == 1 and self.balancer.waits_for_nothing:
            adversary = [] if self.adversary is None else self.adversary.parameters()
            self._compute = GraphedWork(self._computed, hardware.device, [*self.model.parameters(), *adversary])
        self.budget = Budget(config.steps, config.minutes).without(config.settling_share)

    @property
    def averaged(self) -> AIME:
        """The model with averaged weights, settled where they are, in eval mode."""
        model = self.average.best
        assert isinstance(model, AIME)
        return model

    @property
    def trained(self) -> Trained:
        """What a checkpoint holds."""
        return Trained(
            self.model, self.average, self.optimizers, self.replay, self.balancer, self.guard, self.adversary
        )

    def step(self, batches: list[Clips], progress: Progress) -> StepResult:
        """One optimizer step on the mean of `accumulate` batches' losses."""
        share = self.budget.share(progress.step, progress.seconds)
        factor = learning_rate_factor(progress.step, share, self.config.optimizer.warmup)
        scale_learning_rates(self.optimizers, factor)
        ramp = 0.0 if self.adversary is None else self.adversary.ramp(share)
        self._ramp.fill_(ramp)
        kind = StepKind(ramp > 0, self.adversary is not None and self.adversary.learns(progress.step))
        result = self._compute(kind, batches)
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update(self.model)
        if self.adversary is not None and kind.judged:
            self.adversary.optimizer.step()
        return result

    def _computed(self, kind: StepKind, batches: list[Clips]) -> StepResult:
        """All of a step but the optimizers' part: losses, and gradients where the optimizers look for them."""
        self.model.zero_grad(set_to_none=True)
        parts, seen = [], []
        for clips in batches:
            clips = self._prepare(clips)
            part, output = self._differentiate(clips, kind.heard)
            parts.append(part)
            seen.append((output.tokens, output.prior.mixture.log_weights.detach(), clips.valid))
        losses = mean_losses(parts)
        balance = self.balancer.resolve()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip)
        self.guard.judge(self.optimizers, losses, norm, balance)
        critic = None
        if self.adversary is not None and kind.judged:
            with self.hardware.autocast():
                frames = clips.frames.float() / 255
                critic = self.adversary.differentiate(output.reconstructions, frames, clips.valid)
        frames_seen = (torch.cat([each.flatten(0, 1) for each in field]) for field in zip(*seen, strict=True))
        return StepResult(losses, critic, norm, balance, *frames_seen)

    def _prepare(self, clips: Clips) -> Clips:
        """On the device, zoomed."""
        clips = clips.to(self.hardware.device)
        return clips._replace(frames=zoom(clips.frames, self.config.zoom))

    def _differentiate(self, clips: Clips, heard: bool) -> tuple[tuple[TaskLoss, ...], SequenceOutput]:
        outcomes = outcomes_of(clips, self.config.model)
        if self.model.dynamics.control is not None and self.config.weights.elbo.reward:
            self.model.dynamics.control.count_rewards(outcomes.rewards, outcomes.reward_valid)
        states = input_validation.observed(clips.states, self.config.model)
        with self.hardware.autocast():
            frames = clips.frames.float() / 255
            output = self.forward(frames, clips.actions, clips.action_valid, states, clips.valid)
            losses: tuple[TaskLoss, ...] = task_losses(
                self.model,
                output,
                frames,
                outcomes,
                self.config.weights,
                self.config.overshoot,
                self.replay.draw(),
            )
            if self.adversary is not None and heard:
                losses = (*losses, self.adversary.judge(self.model, output, frames, clips.valid))
            losses = tuple(task for task in losses if not task.off)
        self.replay.remember(output.posterior, output.clips(outcomes))
        # nats per frame to nats per pixel value: keeps gradients near 1 at any frame size
        scale = 1 / (frames[0, 0].numel() * self.config.accumulate)
        ramps = {"adversarial": self._ramp * scale}
        totals = {task.task: task.total * ramps.get(task.task, scale) for task in losses}
        self.balancer.differentiate(totals, {"adversarial": self._ramp * self.config.adversary.vote})
        return losses, output


def train(config: TrainConfig) -> TrainResult:
    """Train a world model as the config says, from data on disk to a run directory.

    In processes that torchrun started, each takes batches of its own, and a step is as one on the batches of all.

    Raises:
        AimeError: if data, run directory or hardware do not fit the config; nothing is overwritten then.
        KeyboardInterrupt: if a signal ends it before there is a step to save, or one signal after another at any time.
    """
    with handled() as interruption:
        try:
            with process_group(), run_directory.writing(config):
                return _train(config, interruption)
        finally:
            interruption.held = False


def _train(config: TrainConfig, interrupted: Interruption) -> TrainResult:
    keep_freed_memory()
    hardware = choose_hardware(config.device, config.precision)
    going_on = config.resume and has_checkpoint(config.out)
    data = open_run_data(config)
    start = config.out if going_on else config.init_from
    if start is not None:
        data = data.in_units(*run_directory.in_units_of(read_run(start), data.train))
    if rank() == 0:
        run_directory.prepare(config, data)
    torch.manual_seed(config.seed)
    with Logbook(config.out, Budget(config.steps, config.minutes), resume=going_on) as logbook:
        if config.resume and not going_on:
            logbook.say(f"{config.out}: has no checkpoint yet: starting again with its settings")
        for line in data.notes:
            logbook.say(line)
        logbook.state("reading the data's mean frame")
        trainer = Trainer(config, _starting_model(config, data.train, going_on), hardware)
        progress = Progress()
        if going_on:
            progress = restore(config.out, trainer.trained)
            logbook.resumed(progress, trainer.guard.by_cause)
        seed_noise(config.seed, progress.step)
        return _run(trainer, data, progress, logbook, interrupted)


def _run(
    trainer: Trainer, data: RunData, progress: Progress, logbook: Logbook, interrupted: Interruption
) -> TrainResult:
    config, dataset = trainer.config, data.train
    on_gpu = trainer.hardware.device.type == "cuda"
    clips = _read_ahead(trainer, dataset, progress)
    logbook.state("first step")
    saved = progress.step > 0
    # until there is a step to save, a signal ends the run at once; of several ranks all end after the same step
    interrupted.held = progress.step > 0 or ranks() > 1
    clock = time.perf_counter() - progress.seconds
    while trainer.budget.share(progress.step, progress.seconds) < 1 and not true_on_any_rank(bool(interrupted)):
        batches = list(itertools.islice(clips, config.accumulate))
        result = trainer.step(batches, progress)
        trained = total_on_host(sum(int(each.valid.sum()) for each in batches))
        seconds = first_rank_s(time.perf_counter() - clock)
        progress = Progress(progress.step + 1, progress.frames + trained, seconds)
        interrupted.held = True
        if progress.step % config.log_every == 0 or progress.step == 1:
            logbook.log(progress, _figures(result, trainer))
        logbook.tick(progress)
        if not on_gpu or progress.step % MOST_IN_A_ROW == 0:
            logbook.skipped(progress, trainer.guard.by_cause)
            trainer.guard.require_progress(lambda: _last_good(config.out))
        # weights whose steps are being skipped may be what is wrong
        due = progress.step % config.checkpoint_every == 0 or (not saved and progress.seconds > _FIRST_SAVE_SECONDS)
        if due and not trainer.guard.in_a_row and rank() == 0:
            save(config.out, trainer.trained, progress)
            saved = True
            log_picture(config, dataset, data.validation, trainer.averaged, progress.step, logbook)
    if config.settling_share and trainer.average.settled is None and progress.step:
        with apart(trainer.hardware.device):
            progress = _settle(trainer, dataset, progress, clock, logbook, interrupted)
    if rank() == 0:
        save(config.out, trainer.trained, progress)
        if progress.step % config.checkpoint_every != 0 and not interrupted:
            log_picture(config, dataset, data.validation, trainer.averaged, progress.step, logbook)
    number = (interrupted.number or signal.SIGTERM) if true_on_any_rank(bool(interrupted)) else None
    return TrainResult(config.out, progress.step, progress.seconds, number)


def _read_ahead(trainer: Trainer, dataset: Dataset, progress: Progress) -> Iterator[Clips]:
    """This rank's batches from where training has come to."""
    config, on_gpu = trainer.config, trainer.hardware.device.type == "cuda"
    sampler = ClipSampler(dataset, config.batch, config.length, config.seed, rank(), ranks())
    return prefetch(sampler, progress.step * config.accumulate, pin_memory=on_gpu, workers=reading_threads())


def _settle(
    trainer: Trainer,
    dataset: Dataset,
    progress: Progress,
    clock: float,
    logbook: Logbook,
    interrupted: Interruption,
) -> Progress:
    """Settle a copy of the averaged weights, in the time that is left; training can go on as if this had not been."""
    config, started = trainer.config, progress.seconds
    left = Budget(config.steps, config.minutes).seconds_left(started)
    if not left or true_on_any_rank(bool(interrupted)):
        return progress

    def share_of_time() -> float:
        seconds = first_rank_s(time.perf_counter() - clock)
        logbook.tick(progress._replace(seconds=seconds), "settling")
        return (seconds - started) / left

    def look_at(part: Dataset, take: Callable[[Clips], None], batches: int, until: float) -> None:
        for clips in itertools.islice(_read_ahead(trainer, part, progress), batches):
            take(clips)
            if share_of_time() > until or true_on_any_rank(bool(interrupted)):
                break

    logbook.state("perceiving what the belief will settle on")
    model = trainer.average.copy_to_settle()
    assert isinstance(model, AIME)
    most_steps = sys.maxsize if config.steps is None else progress.step
    learned, left_out = config.settle.divide(dataset)
    if rank() == 0:
        record_settling(config.out, learned, left_out)
    settling = Settling(config, model, trainer.hardware, learned.frames, most_steps)
    if left_out is not None:
        look_at(left_out, settling.set_aside, settling.batches_left_out, _PERCEIVING * config.settle.left_out)
    look_at(learned, settling.perceive, settling.batches, _PERCEIVING)
    begun = min(share_of_time(), 0.99)
    for step in range(1, settling.steps + 1):
        # of the steps' own time: the rate must not fall before they have begun
        share = max((step - 1) / settling.steps, (share_of_time() - begun) / (1 - begun))
        if share >= 1 or true_on_any_rank(bool(interrupted)):
            break
        losses = settling.step(share)
        if step % config.log_every == 0 or step == 1:
            named = [pair for loss in losses for pair in loss.named()]
            figures = {f"settling/{name.split('/')[1]}": float(value) for name, value in named}
            logbook.log_settling(step, figures)
    if true_on_any_rank(bool(interrupted)):
        trainer.average.settled = None
    elif (fit := settling.calibrate()) is not None:
        logbook.log_settling(step, {f"calibration/{name}": value for name, value in fit._asdict().items()})
    return progress._replace(seconds=first_rank_s(time.perf_counter() - clock))


def _last_good(run: Path) -> str:
    try:
        return f"{run}, step {read_progress(run).step}, with --resume"
    except AimeError:
        return "the start: no checkpoint was written yet"


def _figures(result: StepResult, trainer: Trainer) -> dict[str, float]:
    """The step's scalars by name; reads them from the device, so only when logged."""
    tasks = result.losses if result.critic is None else (*result.losses, result.critic)
    named = [pair for task in tasks for pair in task.named()]
    codes = trainer.model.config.tokenizer.codes
    # what is learned from, where the adversary is only heard in part
    ramps = {"adversarial": trainer._ramp}
    figures = {
        "loss": torch.stack([task.total * ramps.get(task.task, 1.0) for task in result.losses]).sum(),
        **dict(named),
        **dict(result.balance.named() if result.balance else ()),
        "gradient_norm": result.gradient_norm,
        "skipped_steps": trainer.guard.counts.sum(),
        "reconstruction_psnr": -10 * torch.log10(trainer.model.decoder.variance),
        "effective_components": effective_components(result.log_weights.exp(), result.valid),
        "codebook_perplexity": codebook_perplexity(result.tokens, result.valid, codes),
        "learning_rate": torch.tensor(trainer.optimizers[0].param_groups[0]["lr"]),
    }
    skipped = {f"skipped_steps/{cause}": float(count) for cause, count in trainer.guard.by_cause.items()}
    if trainer.adversary is not None:
        figures["skipped_critic_steps"] = trainer.adversary.guard.counts.sum()
    return {name: float(value.detach()) for name, value in figures.items()} | skipped


def _starting_model(config: TrainConfig, dataset: Dataset, going_on: bool) -> AIME:
    if going_on:
        weights = checkpoint_directory(config.out) / AVERAGED_WEIGHTS
        model = build_for(weights, config.model, lambda: AIME(config.model))
    else:
        model = AIME(config.model)
    scale, start = model.state_scale, None
    if config.init_from is not None:
        start = load_model(config.init_from)
        model.load_state_dict({**model.state_dict(), **start.state_dict()})
    if rank() == 0:  # which shares it with the others: they need not read all over the data
        model.baseline_image.copy_(torch.from_numpy(dataset.mean_image()))
        # what has learned on other data goes on from its mean frame and in its units: both are part of what it computes
        if start is None:
            model.mean_image.copy_(model.baseline_image)
        if scale is not None and (start is None or not start.config.state.width):
            scale.fit(*map(torch.from_numpy, dataset.state_moments()))
    return model
