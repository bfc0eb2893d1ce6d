"""Dynamics fine-tuning, the last phase of a run: the dynamics learn from cached latents of a frozen encoder."""

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
from aime.primitives.draws import hide_gaps
from aime.primitives.hardware import Hardware
from aime.primitives.ranks import ranks
from aime.runs.schedule import DYNAMICS_FINETUNING, Budget, Progress
from aime.training.calibration import SpreadFit, fit_spread
from aime.training.config import TrainConfig
from aime.training.latent_augmentation import shift_static_latents, static_projection
from aime.training.optimizers import make_optimizers
from aime.training.phase import Phase, clips_from
from aime.training.replay import LatentReplay
from aime.world_model import input_validation
from aime.world_model.model import AIME
from aime.world_model.outputs import LatentClips

MOST_CLIPS_LEFT_OUT = 64
"""Per rank; for cheetah, more clips gave the same calibration."""
CACHING_SHARE = 0.35
"""Largest share of the phase's time for caching, in runs with a budget of minutes."""
COVERAGE = 3
"""Cached frames per frame of the data: with 1, random clips would miss a third of the frames."""


class DynamicsFinetuning(Phase[LatentClips, tuple[TaskLoss, ...]]):
    """Fine-tunes a model's dynamics on fixed latents: `cache` clips, take steps, `finish` with the calibration.

    During joint learning the latents change while the dynamics learn them, and a step encodes few clips. On cached
    latents a step is a hundred times cheaper per frame. All other weights stay frozen.
    """

    name, activity, rate_flag = DYNAMICS_FINETUNING, "dynamics fine-tuning", "dynamics_finetuning.learning_rate"

    def __init__(self, run: TrainConfig, model: AIME, hardware: Hardware, frames: int, most_steps: int) -> None:
        """A phase with an empty cache.

        Args:
            run: the run's config.
            model: in eval mode, changed in place by each step.
            hardware: device and precision.
            frames: number of frames in the training episodes.
            most_steps: largest number of steps, 1 or more.
        """
        config = run.dynamics_finetuning
        self.run, self.config, self.model = run, config, model
        wanted = math.ceil(min(config.frames, COVERAGE * frames) / (run.length * ranks()))
        clips = min(wanted, most_steps * config.clips)
        self.batches = math.ceil(clips / run.batch)
        """Number of batches to cache on each rank."""
        self.batches_left_out = math.ceil(min(self.batches * config.left_out, MOST_CLIPS_LEFT_OUT / run.batch))
        """Number of batches for the calibration on each rank."""
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

    def cache(
        self, learned: Dataset, left_out: Dataset | None, at: Progress, has_time_until: Callable[[float], bool]
    ) -> None:
        """Encode clips for training and calibration, in at most `CACHING_SHARE` of the remaining time.

        Args:
            learned: the training episodes.
            left_out: the episodes for the calibration, if any.
            at: the progress of the run.
            has_time_until: called after every batch with a limit in seconds of training; False ends the caching.
        """
        run, left = self.run, self._run_budget.seconds_left(at.seconds)

        def encode(part: Dataset, add: Callable[[Clips], None], batches: int, share: float) -> None:
            clips = clips_from(part, self.hardware, run.batch, run.length, run.seed, at.step * run.accumulate)
            for batch in itertools.islice(clips, batches):
                add(batch)
                if not has_time_until(at.seconds + share * left):
                    break

        if left_out is not None:
            encode(left_out, self.add_for_calibration, self.batches_left_out, CACHING_SHARE * self.config.left_out)
        encode(learned, self.add_for_training, self.batches, CACHING_SHARE)

    def begin(self, seconds: float) -> None:
        """Set the budget of the steps to the run's remaining minutes after `seconds` of training."""
        left = self._run_budget.seconds_left(seconds)
        self.budget = Budget(self.steps, None if math.isinf(left) else left / 60)

    def add_for_training(self, clips: Clips) -> None:
        """Cache the latents of a batch for training; the states of a share of the clips are masked."""
        posterior, latents = self._encode(clips, self.model.config.state.withheld)
        self.cached.add(posterior, latents)

    def add_for_calibration(self, clips: Clips) -> None:
        """Cache latents of a batch, sampled once, for the calibration."""
        posterior, latents = self._encode(clips, withheld=0.0)
        self.left_out.add(DiagonalGaussian(posterior.rsample(), posterior.std), latents)

    @torch.no_grad()
    def _encode(self, clips: Clips, withheld: float) -> tuple[DiagonalGaussian, LatentClips]:
        clips, model = clips.to(self.hardware.device), self.model.eval()
        states = clips.states
        if states is not None and model.config.state.width and withheld > 0:
            states = hide_gaps(states, withheld)
        with self.hardware.autocast():
            sight = model.perceive(clips.frames, states)
            posterior = model.infer(sight)
        actions = input_validation.admit_actions(
            clips.actions, clips.action_valid, clips.valid.shape, model.null_action
        )
        return posterior, LatentClips(
            posterior.mean, sight.percept.contexts, actions, clips.targets(model.config.state.width)
        )

    def source(self, dataset: Dataset, step: int) -> Iterator[list[LatentClips]]:
        """Clips drawn from the cache."""
        while (clips := self.cached.draw()) is not None:
            yield [clips]

    def schedule(self, step: int, share: float) -> float:
        """Linear warm-up over 20 steps, then 1, and from a share of 0.4 a linear decay to 0.02."""
        return min(1.0, (step + 1) / 20, max(0.02, (1 - share) / 0.6))

    def compute_gradients(self, batches: list[LatentClips], step: int, share: float) -> tuple[TaskLoss, ...]:
        """Compute the one-step losses of augmented latents and their gradients."""
        (clips,) = batches
        latents, shifted = shift_static_latents(
            clips.latents, clips.valid, self._static_projection, self.config.latent_augmentation
        )
        self.model.train().zero_grad(set_to_none=True)
        with self.hardware.autocast():
            both = latent_losses(self.model.dynamics, clips._replace(latents=latents), self.run.weights, shifted)
        losses = tuple(task for task in both if not task.off)
        self.balancer.differentiate({task.task: task.total for task in losses})
        self.combine_gradients(losses)
        return losses

    def figures(self, result: tuple[TaskLoss, ...]) -> dict[str, float]:
        """The loss terms."""
        named = [pair for loss in result for pair in loss.named()]
        return {f"{self.name}/{name.split('/')[1]}": float(value) for name, value in named}

    def finish(self) -> SpreadFit | None:
        """Freeze the model and calibrate its prior's spread on the left-out clips; None if there are none."""
        self.model.zero_grad(set_to_none=True)
        self.model.eval().requires_grad_(False)
        return fit_spread(self.model.dynamics, self.left_out.clips()) if self.left_out.seen else None

    @property
    def _run_budget(self) -> Budget:
        return Budget(self.run.steps, self.run.minutes)

    @cached_property
    def _static_projection(self) -> Tensor:
        return static_projection(self.cached.means, self.cached.stds, self.cached.valid)
