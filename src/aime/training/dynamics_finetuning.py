"""The last phase of a run: belief, prior and heads learn to predict cached latents of a frozen encoder."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from aime.data import Clips, Dataset
from aime.objectives.ledger import TaskLoss
from aime.objectives.tasks import latent_losses
from aime.optimization import Sum
from aime.primitives.distributions import DiagonalGaussian
from aime.primitives.draws import random_gaps
from aime.primitives.hardware import Hardware
from aime.primitives.ranks import ranks
from aime.runs.schedule import DYNAMICS_FINETUNING, Budget, Progress
from aime.training.calibration import SpreadFit, fit_spread
from aime.training.config import TrainConfig
from aime.training.latent_augmentation import shift_static_latents, static_projection
from aime.training.optimizers import make_optimizers
from aime.training.phase import Phase, clips_from
from aime.training.replay import LatentReplay
from aime.training.targets import targets_of
from aime.world_model import input_validation
from aime.world_model.model import AIME
from aime.world_model.outputs import LatentClips

MOST_CLIPS_LEFT_OUT = 64
"""On each rank; more told a prior of cheetah nothing else."""
CACHING = 0.35
"""The most of the phase's time that goes into caching, where a run counts minutes."""
COVERAGE = 3
"""Times a data set's frames: random clips of as many frames as it has leave a third of them out."""


class DynamicsFinetuning(Phase[LatentClips, tuple[TaskLoss, ...]]):
    """Fine-tunes the dynamics of a model on fixed latents: `cache` them, take steps, `calibrate`.

    While the encoder learns, the belief follows latents that move under it, from a few clips a step. To perceive a
    frame costs a hundred times what it costs to follow its latent: what a run's last minutes bring to the encoder is
    little, and what they bring to the belief is much. Only what runs on vectors learns here, all other weights stay.
    """

    name, activity, rate_flag = DYNAMICS_FINETUNING, "dynamics fine-tuning", "dynamics_finetuning.learning_rate"

    def __init__(self, run: TrainConfig, model: AIME, hardware: Hardware, frames: int, most_steps: int) -> None:
        """Nothing is cached yet.

        Args:
            run: its `dynamics_finetuning` says how, its predictive weights what counts of the terms one step ahead.
            model: in eval mode, changed in place by each step.
            hardware: where, and how precisely frames are perceived.
            frames: in the episodes to learn from.
            most_steps: besides the limits of `run.dynamics_finetuning`; 1 or more.
        """
        config = run.dynamics_finetuning
        self.run, self.config, self.model = run, config, model
        wanted = math.ceil(min(config.frames, COVERAGE * frames) / (run.length * ranks()))
        clips = min(wanted, most_steps * config.clips)
        self.batches = math.ceil(clips / run.batch)
        """To cache, on each rank."""
        self.batches_left_out = math.ceil(min(self.batches * config.left_out, MOST_CLIPS_LEFT_OUT / run.batch))
        """To leave out, on each rank, where the data has enough episodes."""
        self.steps = min(most_steps, math.ceil(config.passes * clips / config.clips))
        caches = (
            LatentReplay(config.clips, max(1, batches * run.batch), run.length, model.config)
            for batches in (self.batches, self.batches_left_out)
        )
        self.cached, self.left_out = (each.to(hardware.device) for each in caches)
        learning = list(model.dynamics.parameters())
        for weight in learning:
            weight.requires_grad_(True)
        rates = replace(run.optimizer, learning_rate=config.learning_rate, weight_decay=config.weight_decay)
        super().__init__(
            learning,
            make_optimizers(model, rates, learning),
            Sum((str(number), weight) for number, weight in enumerate(learning)),
            Budget(self.steps, None),
            config.clip,
            hardware,
        )

    def cache(self, learned: Dataset, left_out: Dataset | None, at: Progress, go_on: Callable[[float], bool]) -> None:
        """Perceive clips to learn from and clips to calibrate on, in a part of the time that is left.

        Args:
            learned: the episodes to learn from.
            left_out: the episodes to calibrate on, if any.
            at: how far the run is.
            go_on: asked after every batch whether to perceive another one, given the seconds of training after which
                not to.
        """
        run, left = self.run, self._whole.seconds_left(at.seconds)

        def take(part: Dataset, remember: Callable[[Clips], None], batches: int, share: float) -> None:
            clips = clips_from(part, self.hardware, run.batch, run.length, run.seed, at.step * run.accumulate)
            for batch in itertools.islice(clips, batches):
                remember(batch)
                if not go_on(at.seconds + share * left):
                    break

        if left_out is not None:
            take(left_out, self.set_aside, self.batches_left_out, CACHING * self.config.left_out)
        take(learned, self.perceive, self.batches, CACHING)

    def begin(self, seconds: float) -> None:
        """Take steps from now on, `seconds` of training being over: what is left of the run's minutes is for them."""
        left = self._whole.seconds_left(seconds)
        self.budget = Budget(self.steps, None if math.isinf(left) else left / 60)

    def perceive(self, clips: Clips) -> None:
        """Remember the latents of a batch, to learn from; the states of a share of the clips are withheld from it."""
        posterior, latents = self._see(clips, self.model.config.state.withheld)
        self.cached.remember(posterior, latents)

    def set_aside(self, clips: Clips) -> None:
        """Keep the latents of a batch, sampled once, to calibrate on."""
        posterior, latents = self._see(clips, withheld=0.0)
        self.left_out.remember(DiagonalGaussian(posterior.rsample(), posterior.std), latents)

    @torch.no_grad()
    def _see(self, clips: Clips, withheld: float) -> tuple[DiagonalGaussian, LatentClips]:
        clips, model = clips.to(self.hardware.device), self.model.eval()
        states = clips.states
        if states is not None and model.config.state.width and withheld > 0:
            batch, length = clips.valid.shape
            hidden = random_gaps(batch, length, withheld, states.device)
            states = states.masked_fill(hidden[..., None], torch.nan)
        with self.hardware.autocast():
            sight = model.perceive(clips.frames, states)
            posterior = model.infer(sight)
        actions = input_validation.admit_actions(
            clips.actions, clips.action_valid, clips.valid.shape, model.null_action
        )
        return posterior, LatentClips(posterior.mean, sight.percept.contexts, actions, targets_of(clips, model.config))

    def source(self, dataset: Dataset, step: int) -> Iterator[list[LatentClips]]:
        """Clips drawn from the cache."""
        while (clips := self.cached.draw()) is not None:
            yield [clips]

    def schedule(self, step: int, share: float) -> float:
        """A warm-up of 20 steps, 1, and from 0.4 of the way on a straight line to 0.02."""
        return min(1.0, (step + 1) / 20, max(0.02, (1 - share) / 0.6))

    def losses(self, batches: list[LatentClips], step: int, share: float) -> tuple[TaskLoss, ...]:
        """Those one step ahead, of clips of which some are moved to other scenes."""
        (clips,) = batches
        latents, shifted = shift_static_latents(
            clips.latents, clips.valid, self._static_projection, self.config.latent_augmentation
        )
        self.model.train().zero_grad(set_to_none=True)
        with self.hardware.autocast():
            both = latent_losses(self.model.dynamics, clips._replace(latents=latents), self.run.weights, shifted)
        losses = tuple(task for task in both if not task.off)
        self.balancer.differentiate({task.task: task.total for task in losses})
        self.resolve(losses)
        return losses

    def figures(self, result: tuple[TaskLoss, ...]) -> dict[str, float]:
        """The terms."""
        named = [pair for loss in result for pair in loss.named()]
        return {f"{self.name}/{name.split('/')[1]}": float(value) for name, value in named}

    def finish(self) -> SpreadFit | None:
        """Freeze the model and fit its prior's spread to what was left out; None where nothing was."""
        self.model.zero_grad(set_to_none=True)
        self.model.eval().requires_grad_(False)
        return fit_spread(self.model.dynamics, self.left_out.clips()) if self.left_out.seen else None

    @property
    def _whole(self) -> Budget:
        return Budget(self.run.steps, self.run.minutes)

    @cached_property
    def _static_projection(self) -> Tensor:
        return static_projection(self.cached.means, self.cached.stds, self.cached.valid)
