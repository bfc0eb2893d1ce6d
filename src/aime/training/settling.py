"""The end of a run: with the eyes shut, the belief and the prior learn to follow the latents as they now are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from aime.data import Clips, Dataset
from aime.errors import expect_at_least_zero, expect_at_most, expect_positive, expect_shares, expect_shares_below_one
from aime.objectives.ledger import TaskLoss
from aime.objectives.predictive import latent_losses
from aime.primitives.distributions import DiagonalGaussian
from aime.primitives.draws import random_gaps
from aime.primitives.plain import later
from aime.primitives.ranks import average_over_ranks, ranks
from aime.training.calibration import SpreadFit, fit_spread
from aime.training.guard import Guard
from aime.training.hardware import Hardware
from aime.training.optimizers import make_optimizers, scale_learning_rates
from aime.training.other_scenes import in_other_scenes, still_part
from aime.training.outcomes import outcomes_of
from aime.training.replay import MOST_CLIPS, LatentReplay, ReplayConfig
from aime.world_model import input_validation
from aime.world_model.model import AIME
from aime.world_model.outputs import LatentClips

if TYPE_CHECKING:
    from aime.training.config import TrainConfig

FEWEST_LEFT_OUT = 4
"""Episodes, below which one odd episode would decide how wide the prior is."""
MOST_CLIPS_LEFT_OUT = 64
"""On each rank; more told a prior of cheetah nothing else."""


@dataclass(frozen=True)
class SettleConfig:
    """How a run settles.

    Raises:
        AimeError: if a number is out of its range.
    """

    share: float = 0.2
    """Of a run's minutes, the most that settling takes; at 0 no run settles, not even one that counts steps."""
    frames: int = 65536
    """The most frames that are perceived for it; never more than three times those of the data set."""
    passes: float = 60.0
    """How often each of them is learned from, at most; a run that counts steps settles for no more than it trained."""
    clips: int = 32
    """Clips in a batch."""
    learning_rate: float = 2.7e-3
    """Peak, in place of the run's `optimizer.learning_rate`; from 0.4 of the way on it falls to a fiftieth in a
    straight line."""
    weight_decay: float = 0.45
    """In place of the run's: without it many passes over few frames memorise them."""
    clip: float = 100.0
    """Largest norm of the gradient, of a loss in nats per frame."""
    moved: float = field(default=0.5, metadata=later(before=0.0))
    """Share of the clips whose still scene is moved towards another clip's, in latents; 0 leaves all as they are."""
    left_out: float = field(default=0.1, metadata=later(before=0.0))
    """Share of the episodes that it does not learn from, and that tell how wide the prior should be; 0 learns from all,
    as do runs on data where it comes to fewer than four."""

    def __post_init__(self) -> None:
        expect_shares_below_one(self, "share", of="settle", zero="switches settling off")
        expect_positive(self, "frames", "passes", "clips", "learning_rate", "clip", of="settle")
        expect_at_most(self, MOST_CLIPS, "clips", of="settle")
        expect_shares(self, "moved", of="settle")
        expect_shares_below_one(self, "left_out", of="settle", zero="learns from all")
        expect_at_least_zero(self, "weight_decay", of="settle")

    def divide(self, dataset: Dataset) -> tuple[Dataset, Dataset | None]:
        """The episodes to learn from, and those left out; None where they would be too few to judge by."""
        learned, left_out = dataset.leave_out(self.left_out)
        return (dataset, None) if left_out is None or left_out.episodes < FEWEST_LEFT_OUT else (learned, left_out)


class Settling:
    """Teaches the latent dynamics of a model on fixed latents: `perceive` all, take `steps` by `step`, `calibrate`.

    While the encoder learns, the belief follows latents that move under it, from a few clips a step. To perceive a
    frame costs a hundred times what it costs to follow its latent: what a run's last minutes bring to the encoder is
    little, and what they bring to the belief is much. Only what runs on vectors learns here, all other weights stay.
    """

    COVERAGE = 3
    """Times a data set's frames: random clips of as many frames as it has leave a third of them out."""

    def __init__(self, run: TrainConfig, model: AIME, hardware: Hardware, frames: int, most_steps: int) -> None:
        """Nothing is perceived yet.

        Args:
            run: its `settle` says how, its predictive weights what counts of the terms one step ahead.
            model: changed in place by each step, and left in eval mode without gradients.
            hardware: where, and how precisely frames are perceived.
            frames: in the episodes to learn from.
            most_steps: beside the limits of `run.settle`; 1 or more.
        """
        self.run, self.config, self.model, self.hardware = run, run.settle, model, hardware
        wanted = math.ceil(min(self.config.frames, self.COVERAGE * frames) / (run.length * ranks()))
        clips = min(wanted, most_steps * self.config.clips)
        self.batches = math.ceil(clips / run.batch)
        """To perceive, on each rank."""
        self.batches_left_out = math.ceil(min(self.batches * self.config.left_out, MOST_CLIPS_LEFT_OUT / run.batch))
        """To leave out, on each rank, where the data has enough episodes."""
        self.steps = min(most_steps, math.ceil(self.config.passes * clips / self.config.clips))
        memory = ReplayConfig(self.config.clips, self.batches * run.batch)
        self._memory = LatentReplay(memory, run.length, model.config).to(hardware.device)
        self._guard = Guard().to(hardware.device)
        self._learning = list(model.dynamics.parameters())
        rates = replace(run.optimizer, learning_rate=self.config.learning_rate, weight_decay=self.config.weight_decay)
        self._optimizers = make_optimizers(model, rates, self._learning)
        self._taken = 0
        self._left_out: list[LatentClips] = []

    def perceive(self, clips: Clips) -> None:
        """Remember the latents of a batch, to learn from; the states of a share of the clips are withheld from it."""
        posterior, latents = self._see(clips, self.model.config.state.withheld)
        self._memory.remember(posterior, latents)

    def set_aside(self, clips: Clips) -> None:
        """Keep the latents of a batch to `calibrate` on."""
        posterior, latents = self._see(clips, withheld=0.0)
        self._left_out.append(latents._replace(latents=posterior.rsample()))

    def calibrate(self) -> SpreadFit | None:
        """Fit the prior's spread to what was left out, once all steps are taken; None where nothing was."""
        if not self._left_out:
            return None
        return fit_spread(self.model.dynamics, reduce(LatentClips.join, self._left_out))

    @torch.no_grad()
    def _see(self, clips: Clips, withheld: float) -> tuple[DiagonalGaussian, LatentClips]:
        clips, model = clips.to(self.hardware.device), self.model.eval()
        states = input_validation.observed(clips.states, model.config)
        if states is not None and withheld > 0:
            batch, length = clips.valid.shape
            hidden = random_gaps(batch, length, withheld, states.device)
            states = states.masked_fill(hidden[..., None], torch.nan)
        with self.hardware.autocast():
            sight = model.perceive(model.centre(clips.frames), states)
            posterior = model.infer(sight)
        actions = input_validation.admit_actions(
            clips.actions, clips.action_valid, clips.valid.shape, model.null_action
        )
        return posterior, LatentClips(posterior.mean, sight.percept.contexts, actions, outcomes_of(clips, model.config))

    def step(self, share: float) -> tuple[TaskLoss, ...]:
        """One step on remembered clips, `share` in [0, 1] of the way; once a batch is perceived.

        One whose loss or gradient is not finite changes nothing.
        """
        scale_learning_rates(self._optimizers, _rate(self._taken, share))
        clips = self._memory.draw()
        assert clips is not None, "nothing was perceived"
        latents, elsewhere = in_other_scenes(clips.latents, clips.valid, self._still_part, self.config.moved)
        self.model.train()
        for weight in self._learning:
            weight.requires_grad_(True)
        try:
            with self.hardware.autocast():
                losses = latent_losses(
                    self.model.dynamics, clips._replace(latents=latents), self.run.weights, elsewhere
                )
            total = torch.stack([loss.total for loss in losses]).sum()
            gradients = torch.autograd.grad(total, self._learning, allow_unused=True, materialize_grads=True)
            average_over_ranks(gradients)
            for weight, gradient in zip(self._learning, gradients, strict=True):
                weight.grad = gradient
            norm = nn.utils.clip_grad_norm_(self._learning, self.config.clip)
            self._guard.judge(self._optimizers, losses, norm)
            for optimizer in self._optimizers:
                optimizer.step()
        finally:
            self.model.zero_grad(set_to_none=True)
            self.model.eval().requires_grad_(False)
        self._taken += 1
        return losses

    @cached_property
    def _still_part(self) -> Tensor:
        return still_part(self._memory.means, self._memory.stds, self._memory.valid)


def _rate(step: int, share: float) -> float:
    """The learning rate's factor: a warm-up of 20 steps, 1, and a fall that reaches 0.02 at the end."""
    return min(1.0, (step + 1) / 20, max(0.02, (1 - share) / 0.6))
