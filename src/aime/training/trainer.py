"""The training loop: joint learning, then dynamics fine-tuning, from data to the last checkpoint."""

from __future__ import annotations

import math
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aime.data import Dataset
from aime.errors import AimeError
from aime.primitives.hardware import choose_hardware, keep_freed_memory
from aime.primitives.randomness import random_states, set_random_states
from aime.primitives.ranks import any_rank, from_first_rank, rank, ranks, sum_on_host
from aime.primitives.signals import Interruption, handled
from aime.primitives.tensor_files import build_for
from aime.runs.checkpoint_files import read_progress
from aime.runs.logbook import Logbook
from aime.runs.processes import process_group, seed_noise
from aime.runs.schedule import COMPLETE, Budget, Progress
from aime.training import run_directory
from aime.training.checkpoint import TrainingState, restore, restore_finetuning, save
from aime.training.config import TrainConfig
from aime.training.dynamics_finetuning import DynamicsFinetuning
from aime.training.joint import JointLearning
from aime.training.nonfinite import MAX_CONSECUTIVE_SKIPS
from aime.training.phase import Phase
from aime.training.pictures import log_picture
from aime.training.run_data import RunData, open_run_data, record_finetuning
from aime.world_model.model import AIME
from aime.world_model.saved import AVERAGED_WEIGHTS, checkpoint_directory, has_checkpoint, read_run

_FIRST_SAVE_SECONDS = 60.0
"""A run writes its first checkpoint after this time, even if `checkpoint_every` steps take longer."""


@dataclass(frozen=True)
class TrainResult:
    """The result of a run."""

    run: Path
    step: int
    seconds: float
    """Wall time of training, including earlier sessions of a resumed run."""
    signal: int | None = None
    """The number of the signal that interrupted the run, if any."""

    @property
    def interrupted(self) -> bool:
        """Whether a signal interrupted the run."""
        return self.signal is not None


def train(config: TrainConfig) -> TrainResult:
    """Train a world model on the config's data and write the run directory.

    Under torchrun, each process draws its own batches, and a step averages the gradients of all.

    Raises:
        AimeError: if data, run directory or hardware do not fit the config; nothing is overwritten then.
        KeyboardInterrupt: if a signal arrives before the first step, or a second signal at any time.
    """
    with handled() as interruption:
        try:
            with process_group(), run_directory.locked(config):
                return _train(config, interruption)
        finally:
            interruption.held = False


def _train(config: TrainConfig, interruption: Interruption) -> TrainResult:
    keep_freed_memory()
    hardware = choose_hardware(config.device, config.precision)
    resuming = config.resume and has_checkpoint(config.out)
    data = open_run_data(config)
    start = config.out if resuming else config.init_from
    if start is not None:
        data = data.with_train(*run_directory.in_action_units_of(read_run(start), data.train))
    if rank() == 0:
        run_directory.prepare(config, data)
    torch.manual_seed(config.seed)
    with Logbook(config.out, Budget(config.steps, config.minutes)) as logbook:
        if config.resume and not resuming:
            logbook.print_line(f"{config.out}: has no checkpoint yet: starting again with its settings")
        for line in data.notes:
            logbook.print_line(line)
        logbook.show_activity("reading the data's mean frame")
        joint = JointLearning(config, _initial_model(config, data.train, resuming), hardware)
        trainer = Trainer(joint, data, logbook, interruption)
        if resuming:
            trainer.restore()
        seed_noise(config.seed, trainer.progress.step)
        return trainer.run()


class Trainer:
    """Runs the phases of a run in order, starting at its current progress."""

    def __init__(self, joint: JointLearning, data: RunData, logbook: Logbook, interruption: Interruption) -> None:
        self.joint, self.config, self.data = joint, joint.config, data
        self.logbook, self.interruption = logbook, interruption
        self.progress = Progress()
        self._state = TrainingState(
            joint.model,
            joint.average,
            joint.optimizers,
            joint.replay,
            joint.balancer,
            joint.nonfinite,
            joint.adversary,
        )
        self._saved = False
        self._start_time = math.nan

    def restore(self) -> None:
        """Resume from the run's last checkpoint."""
        self.progress = restore(self.config.out, self._state)
        self._saved = self.progress.step > 0

    def run(self) -> TrainResult:
        """Run every phase until the budget is spent or a signal arrives, then save a checkpoint."""
        joint, config = self.joint, self.config
        self._start_time = time.perf_counter() - self.progress.seconds
        # before the first step a signal stops one process at once; several ranks must stop after the same step
        self.interruption.held = self.progress.step > 0 or ranks() > 1
        self.logbook.show_activity("first step")
        self._run_phase(joint)
        left = Budget(config.steps, config.minutes).seconds_left(self.progress.seconds)
        wanted = config.finetuning_share and joint.average.finetuned is None and self.progress.step and left
        if wanted and not self._interrupted():
            self._finetune()
        interrupted = self._interrupted()
        if not interrupted:
            self.progress = self.progress._replace(phase=COMPLETE)
        self._save()
        if self.progress.step % config.checkpoint_every != 0 and not interrupted:
            self._draw_pictures()
        number = (self.interruption.number or signal.SIGTERM) if interrupted else None
        return TrainResult(config.out, self.progress.step, self.progress.seconds, number)

    def _run_phase(self, phase: Phase[Any, Any]) -> None:
        """Take the steps of a phase until its budget is spent or a signal arrives."""
        config, logbook, nonfinite = self.config, self.logbook, phase.nonfinite
        done, seconds = self.progress.within(phase.name)
        logbook.begin(phase.name, self.progress, nonfinite.by_cause)
        source = phase.source(self.data.train, done)
        share = phase.budget.share(done, seconds)
        while share < 1 and not self._interrupted():
            batches = next(source)
            result = phase.step(batches, done, share)
            frames = sum_on_host(phase.frames(batches))
            self.progress = self.progress.after_step(phase.name, frames, self._seconds())
            done, seconds = self.progress.within(phase.name)
            share = phase.budget.share(done, seconds)
            self.interruption.held = True
            if done % config.log_every == 0 or done == 1 or share == 1:
                logbook.log(phase.name, self.progress, phase.figures(result))
            logbook.tick(self.progress, phase.activity)
            if phase.hardware.device.type != "cuda" or done % MAX_CONSECUTIVE_SKIPS == 0:
                logbook.report_skipped(done, nonfinite.by_cause)
                nonfinite.require_progress(phase.rate_flag, lambda: _last_checkpoint(config.out))
            due = done % config.checkpoint_every == 0
            due |= not self._saved and self.progress.seconds > _FIRST_SAVE_SECONDS
            # skipped steps may be the fault of the weights: keep the checkpoint from before
            if due and not nonfinite.in_a_row:
                self._save()
                if phase is self.joint:
                    self._draw_pictures()

    def _finetune(self) -> None:
        """Fine-tune the dynamics of a copy of the averaged weights; the state of joint learning is unchanged."""
        joint, config, joint_random = self.joint, self.config, random_states()
        learned, left_out = config.dynamics_finetuning.divide(self.data.train)
        if rank() == 0:
            record_finetuning(config.out, learned, left_out)
        most_steps = self.progress.step if config.steps is not None else sys.maxsize
        phase = DynamicsFinetuning(config, joint.average.copied(), joint.hardware, learned.frames, most_steps)
        if self.progress.phase != phase.name or not restore_finetuning(config.out, phase):
            self.progress = self.progress._replace(phase=phase.name, phase_step=0)
            self._save()  # so that a kill in this phase loses no step of joint learning
            self.logbook.show_activity("caching latents for dynamics fine-tuning")
            phase.cache(learned, left_out, self.progress, self._has_time_until)
            self.progress = self.progress._replace(seconds=(now := self._seconds()), phase_start_seconds=now)
        if not self._interrupted():
            self._state = self._state._replace(finetuning=phase, random=joint_random)
            phase.begin(self.progress.phase_start_seconds)
            self._run_phase(phase)
        if not self._interrupted():
            if (fit := phase.finish()) is not None:
                figures = {f"calibration/{name}": value for name, value in fit._asdict().items()}
                self.logbook.log(phase.name, self.progress, figures)
            joint.average.finetuned = phase.model
            set_random_states(joint_random)
            self._state = self._state._replace(finetuning=None, random=None)
            self.progress = self.progress._replace(seconds=self._seconds())

    def _has_time_until(self, limit: float) -> bool:
        """Whether training has taken at most `limit` seconds and no signal has arrived."""
        seconds = self._seconds()
        self.logbook.tick(self.progress._replace(seconds=seconds), DynamicsFinetuning.activity)
        return seconds <= limit and not self._interrupted()

    def _seconds(self) -> float:
        return from_first_rank(time.perf_counter() - self._start_time)

    def _interrupted(self) -> bool:
        return any_rank(bool(self.interruption))

    def _save(self) -> None:
        if rank() == 0:
            save(self.config.out, self._state, self.progress)
        self._saved = True

    def _draw_pictures(self) -> None:
        if rank() == 0:
            model = self.joint.average.best
            log_picture(self.config, self.data.train, self.data.validation, model, self.progress.step, self.logbook)


def _last_checkpoint(run: Path) -> str:
    try:
        return f"{run}, step {read_progress(run).step}, with --resume"
    except AimeError:
        return "the start, as there is no checkpoint yet"


def _initial_model(config: TrainConfig, dataset: Dataset, resuming: bool) -> AIME:
    if resuming:
        weights = checkpoint_directory(config.out) / AVERAGED_WEIGHTS
        model = build_for(weights, config.model, lambda: AIME(config.model))
    else:
        model = AIME(config.model)
    scale, start = model.state_scale, None
    if config.init_from is not None:
        start = AIME.from_pretrained(config.init_from)
        model.load_state_dict({**model.state_dict(), **start.state_dict()})
    if rank() == 0:  # JointLearning broadcasts it, so that one rank alone reads all data
        model.baseline_image.copy_(torch.from_numpy(dataset.mean_image()))
        # pretrained weights depend on the mean frame and state scale that they were trained with
        if start is None:
            model.mean_image.copy_(model.baseline_image)
        if scale is not None and (start is None or not start.config.state.width):
            scale.fit(*map(torch.from_numpy, dataset.state_moments()))
    return model
