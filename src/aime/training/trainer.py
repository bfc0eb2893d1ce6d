"""A run from its data to its last checkpoint: joint learning, then dynamics fine-tuning, in one loop."""

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
from aime.primitives.ranks import first_rank_s, rank, ranks, total_on_host, true_on_any_rank
from aime.primitives.signals import Interruption, handled
from aime.primitives.tensor_files import build_for
from aime.runs.checkpoint_files import read_progress
from aime.runs.logbook import Logbook
from aime.runs.processes import process_group, seed_noise
from aime.runs.schedule import COMPLETE, Budget, Progress
from aime.training import run_directory
from aime.training.checkpoint import Trained, restore, restore_finetuning, save
from aime.training.config import TrainConfig
from aime.training.dynamics_finetuning import DynamicsFinetuning
from aime.training.joint import JointLearning
from aime.training.nonfinite import MOST_IN_A_ROW
from aime.training.phase import Phase
from aime.training.pictures import log_picture
from aime.training.run_data import RunData, open_run_data, record_finetuning
from aime.world_model.model import AIME
from aime.world_model.saved import AVERAGED_WEIGHTS, checkpoint_directory, has_checkpoint, read_run

_FIRST_SAVE_SECONDS = 60.0
"""After which a run has a first checkpoint to go on from, however long `checkpoint_every` steps take."""


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


def _train(config: TrainConfig, interruption: Interruption) -> TrainResult:
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
    with Logbook(config.out, Budget(config.steps, config.minutes)) as logbook:
        if config.resume and not going_on:
            logbook.say(f"{config.out}: has no checkpoint yet: starting again with its settings")
        for line in data.notes:
            logbook.say(line)
        logbook.state("reading the data's mean frame")
        joint = JointLearning(config, _starting_model(config, data.train, going_on), hardware)
        trainer = Trainer(joint, data, logbook, interruption)
        if going_on:
            trainer.restore()
        seed_noise(config.seed, trainer.progress.step)
        return trainer.run()


class Trainer:
    """Runs the phases of a run, one after another, from wherever the run is."""

    def __init__(self, joint: JointLearning, data: RunData, logbook: Logbook, interruption: Interruption) -> None:
        self.joint, self.config, self.data = joint, joint.config, data
        self.logbook, self.interruption = logbook, interruption
        self.progress = Progress()
        self._trained = Trained(
            joint.model,
            joint.average,
            joint.optimizers,
            joint.replay,
            joint.balancer,
            joint.nonfinite,
            joint.adversary,
        )
        self._saved = False
        self._zero = math.nan

    def restore(self) -> None:
        """Go on from the run's last checkpoint."""
        self.progress = restore(self.config.out, self._trained)
        self._saved = self.progress.step > 0

    def run(self) -> TrainResult:
        """Every phase, as far as the budget and signals allow; the end is saved."""
        joint, config = self.joint, self.config
        self._zero = time.perf_counter() - self.progress.seconds
        # until there is a step to save, a signal ends the run at once; of several ranks all end after the same step
        self.interruption.held = self.progress.step > 0 or ranks() > 1
        self.logbook.state("first step")
        self._learn(joint)
        left = Budget(config.steps, config.minutes).seconds_left(self.progress.seconds)
        wanted = config.finetuning_share and joint.average.finetuned is None and self.progress.step and left
        if wanted and not self._ending():
            self._finetune()
        ending = self._ending()
        if not ending:
            self.progress = self.progress._replace(phase=COMPLETE)
        self._save()
        if self.progress.step % config.checkpoint_every != 0 and not ending:
            self._draw()
        number = (self.interruption.number or signal.SIGTERM) if ending else None
        return TrainResult(config.out, self.progress.step, self.progress.seconds, number)

    def _learn(self, phase: Phase[Any, Any]) -> None:
        """The steps of a phase, until its budget is spent or a signal asks the run to end."""
        config, logbook, nonfinite = self.config, self.logbook, phase.nonfinite
        done, seconds = self.progress.within(phase.name)
        logbook.begin(phase.name, self.progress, nonfinite.by_cause)
        source = phase.source(self.data.train, done)
        while (share := phase.budget.share(done, seconds)) < 1 and not self._ending():
            batches = next(source)
            result = phase.step(batches, done, share)
            frames = total_on_host(phase.frames(batches))
            self.progress = self.progress.after_step(phase.name, frames, self._seconds())
            done, seconds = self.progress.within(phase.name)
            self.interruption.held = True
            if done % config.log_every == 0 or done == 1 or phase.budget.share(done, seconds) == 1:
                logbook.log(phase.name, self.progress, phase.figures(result))
            logbook.tick(self.progress, phase.activity)
            if phase.hardware.device.type != "cuda" or done % MOST_IN_A_ROW == 0:
                logbook.skipped(done, nonfinite.by_cause)
                nonfinite.require_progress(phase.rate_flag, lambda: _last_good(config.out))
            due = done % config.checkpoint_every == 0
            due |= not self._saved and self.progress.seconds > _FIRST_SAVE_SECONDS
            # weights whose steps are being skipped may be what is wrong
            if due and not nonfinite.in_a_row:
                self._save()
                if phase is self.joint:
                    self._draw()

    def _finetune(self) -> None:
        """Fine-tune a copy of the averaged weights; joint learning can go on as if this had not been."""
        joint, config, joint_random = self.joint, self.config, random_states()
        learned, left_out = config.dynamics_finetuning.divide(self.data.train)
        if rank() == 0:
            record_finetuning(config.out, learned, left_out)
        most_steps = self.progress.step if config.steps is not None else sys.maxsize
        phase = DynamicsFinetuning(config, joint.average.copied(), joint.hardware, learned.frames, most_steps)
        if self.progress.phase != phase.name or not restore_finetuning(config.out, phase):
            self.progress = self.progress._replace(phase=phase.name, phase_step=0)
            self._save()  # a kill in this phase takes none of the steps before
            self.logbook.state("caching latents for dynamics fine-tuning")
            phase.cache(learned, left_out, self.progress, self._goes_on)
            self.progress = self.progress._replace(seconds=(now := self._seconds()), phase_start=now)
        if not self._ending():
            self._trained = self._trained._replace(finetuning=phase, random=joint_random)
            phase.begin(self.progress.phase_start)
            self._learn(phase)
        if not self._ending():
            if (fit := phase.finish()) is not None:
                figures = {f"calibration/{name}": value for name, value in fit._asdict().items()}
                self.logbook.log(phase.name, self.progress, figures)
            joint.average.finetuned = phase.model
            set_random_states(joint_random)
            self._trained = self._trained._replace(finetuning=None, random=None)
            self.progress = self.progress._replace(seconds=self._seconds())

    def _goes_on(self, until: float) -> bool:
        """Whether neither a number of seconds of training nor the run is over."""
        seconds = self._seconds()
        self.logbook.tick(self.progress._replace(seconds=seconds), DynamicsFinetuning.activity)
        return seconds <= until and not self._ending()

    def _seconds(self) -> float:
        return first_rank_s(time.perf_counter() - self._zero)

    def _ending(self) -> bool:
        return true_on_any_rank(bool(self.interruption))

    def _save(self) -> None:
        if rank() == 0:
            save(self.config.out, self._trained, self.progress)
        self._saved = True

    def _draw(self) -> None:
        if rank() == 0:
            model = self.joint.average.best
            log_picture(self.config, self.data.train, self.data.validation, model, self.progress.step, self.logbook)


def _last_good(run: Path) -> str:
    try:
        return f"{run}, step {read_progress(run).step}, with --resume"
    except AimeError:
        return "the start: no checkpoint was written yet"


def _starting_model(config: TrainConfig, dataset: Dataset, going_on: bool) -> AIME:
    if going_on:
        weights = checkpoint_directory(config.out) / AVERAGED_WEIGHTS
        model = build_for(weights, config.model, lambda: AIME(config.model))
    else:
        model = AIME(config.model)
    scale, start = model.state_scale, None
    if config.init_from is not None:
        start = AIME.from_pretrained(config.init_from)
        model.load_state_dict({**model.state_dict(), **start.state_dict()})
    if rank() == 0:  # which shares it with the others: they need not read all over the data
        model.baseline_image.copy_(torch.from_numpy(dataset.mean_image()))
        # what has learned on other data goes on from its mean frame and in its units: both are part of what it computes
        if start is None:
            model.mean_image.copy_(model.baseline_image)
        if scale is not None and (start is None or not start.config.state.width):
            scale.fit(*map(torch.from_numpy, dataset.state_moments()))
    return model
