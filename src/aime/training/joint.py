"""Joint learning, the first phase of a run: all parts of the model learn from clips."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from aime.data import Clips, Dataset
from aime.objectives.ledger import TaskLoss, mean_losses
from aime.objectives.tasks import task_losses
from aime.optimization import Balance, RGBConfig, make_balancer
from aime.optimization.weight_average import WeightAverage
from aime.primitives.cuda_graphs import GraphedFunction
from aime.primitives.hardware import Hardware
from aime.primitives.pixels import to_unit
from aime.primitives.quantize import codebook_perplexity
from aime.primitives.ranks import ranks, share_from_first_rank
from aime.representation.divergences import effective_components
from aime.runs.schedule import JOINT, Budget, learning_rate_factor
from aime.training.adversary import Adversary
from aime.training.config import TrainConfig
from aime.training.optimizers import make_optimizers
from aime.training.phase import Phase, clips_from
from aime.training.replay import LatentReplay
from aime.world_model.core import part_of
from aime.world_model.model import AIME
from aime.world_model.outputs import SequenceOutput


class StepResult(NamedTuple):
    """Results of one step for the log, as tensors on the device."""

    losses: tuple[TaskLoss, ...]
    """Losses of the active tasks, averaged over the accumulated batches."""
    critic: TaskLoss | None
    """The discriminators' loss, if they took a step."""
    gradient_norm: Tensor
    balance: Balance | None
    """Statistics of the tasks' gradients, if the balancer computes them."""
    tokens: Int[Tensor, "N h w"]
    """Tokens of the N frames of all accumulated batches."""
    log_weights: Float[Tensor, "N K"]
    """Log weights of the prior's components."""
    valid: Bool[Tensor, " N"]
    """False on padding."""


class StepKind(NamedTuple):
    """The branches of a step, decided on the host; each combination is a separate CUDA graph."""

    adversarial_on: bool
    """The model's adversarial loss is on."""
    discriminators_learn: bool
    """The discriminators take a step."""


class JointLearning(Phase[Clips, StepResult]):
    """Trains model and discriminators on clips, with balanced task gradients, replay and averaged weights."""

    name, activity, rate_flag = JOINT, "", "optimizer.learning_rate"

    def __init__(self, config: TrainConfig, model: AIME, hardware: Hardware) -> None:
        self.config = config
        self.model = model.to(hardware.device).train()
        share_from_first_rank([*self.model.parameters(), *self.model.buffers()])
        super().__init__(
            list(self.model.parameters()),
            make_optimizers(self.model, config.optimizer),
            make_balancer(config.balancer, self.model.named_parameters(), RGBConfig(scope="module"), part_of),
            Budget(config.steps, config.minutes).without(config.finetuning_share),
            config.optimizer.clip,
            hardware,
        )
        self.average = WeightAverage(self.model, config.optimizer.ema_decay)
        self.replay = LatentReplay(config.replay.clips, config.replay.capacity, config.length, config.model)
        self.replay.to(hardware.device)
        self.forward = self.model.run_sequence
        self.adversary: Adversary | None = None
        if config.adversary.enabled:
            self.adversary = Adversary(config.adversary, config.weights.adversarial).to(hardware.device)
            share_from_first_rank([*self.adversary.parameters(), *self.adversary.buffers()])
        self._ramp = torch.zeros((), device=hardware.device)
        self._run: Callable[[StepKind, list[Clips]], StepResult] = self._forward_backward
        if config.cuda_graphs and hardware.device.type == "cuda" and ranks() == 1 and self.balancer.no_host_sync:
            adversary = [] if self.adversary is None else self.adversary.parameters()
            self._run = GraphedFunction(self._forward_backward, hardware.device, [*self.parameters, *adversary])

    def source(self, dataset: Dataset, step: int) -> Iterator[list[Clips]]:
        """Random clips."""
        config = self.config
        first = step * config.accumulate
        clips = clips_from(dataset, self.hardware, config.batch, config.length, config.seed, first)
        while batches := list(itertools.islice(clips, config.accumulate)):
            yield batches

    def frames(self, batches: list[Clips]) -> int:
        """The number of valid frames."""
        return sum(int(clips.valid.sum()) for clips in batches)

    def schedule(self, step: int, share: float) -> float:
        """Linear warm-up, then a half cosine from 1 to 0.1."""
        return learning_rate_factor(step, share, self.config.optimizer.warmup)

    def step(self, batches: list[Clips], step: int, share: float) -> StepResult:
        """Take one optimizer step on the mean loss of the batches, and one of the discriminators if it is due."""
        result = super().step(batches, step, share)
        self.average.update(self.model)
        if self.adversary is not None and result.critic is not None:
            self.adversary.optimizer.step()
        return result

    def compute_gradients(self, batches: list[Clips], step: int, share: float) -> StepResult:
        """Compute the task losses, the ramped adversarial loss and their gradients."""
        ramp = 0.0 if self.adversary is None else self.adversary.ramp(share)
        self._ramp.fill_(ramp)
        kind = StepKind(ramp > 0, self.adversary is not None and self.adversary.learns(step))
        return self._run(kind, batches)

    def _forward_backward(self, kind: StepKind, batches: list[Clips]) -> StepResult:
        self.model.zero_grad(set_to_none=True)
        batch_losses, frame_outputs = [], []
        for clips in batches:
            clips = clips.to(self.hardware.device)
            clips = clips._replace(frames=to_unit(clips.frames))
            tasks, output = self._differentiate(clips, kind.adversarial_on)
            batch_losses.append(tasks)
            frame_outputs.append((output.tokens, output.prior.mixture.log_weights.detach(), clips.valid))
        losses = mean_losses(batch_losses)
        norm, balance = self.combine_gradients(losses)
        critic = None
        if self.adversary is not None and kind.discriminators_learn:
            with self.hardware.autocast():
                critic = self.adversary.critic_backward(output.reconstructions, clips.frames, clips.valid)
        fields = (torch.cat([each.flatten(0, 1) for each in field]) for field in zip(*frame_outputs, strict=True))
        return StepResult(losses, critic, norm, balance, *fields)

    def _differentiate(self, clips: Clips, adversarial_on: bool) -> tuple[tuple[TaskLoss, ...], SequenceOutput]:
        targets = clips.targets(self.config.model.state.width)
        if self.model.dynamics.control is not None and self.config.weights.elbo.reward:
            self.model.dynamics.control.count_rewards(targets.rewards, targets.reward_valid)
        with self.hardware.autocast():
            frames = clips.frames
            output = self.forward(frames, clips.actions, clips.action_valid, clips.states, clips.valid)
            losses: tuple[TaskLoss, ...] = task_losses(
                self.model,
                output,
                frames,
                targets,
                self.config.weights,
                self.config.overshoot,
                self.replay.draw(),
            )
            if self.adversary is not None and adversarial_on:
                losses = (*losses, self.adversary.generator_loss(self.model, output, frames, clips.valid))
            losses = tuple(task for task in losses if not task.off)
        self.replay.add(output.posterior, output.clips(targets))
        # from nats per frame to nats per pixel value: gradients are then near 1 at any frame size
        scale = 1 / (frames[0, 0].numel() * self.config.accumulate)
        ramps = {"adversarial": self._ramp * scale}
        totals = {task.task: task.total * ramps.get(task.task, scale) for task in losses}
        self.balancer.differentiate(totals, {"adversarial": self._ramp * self.config.adversary.vote})
        return losses, output

    def figures(self, result: StepResult) -> dict[str, float]:
        """The loss and its terms, gradient statistics, and the use of tokens and components."""
        tasks = result.losses if result.critic is None else (*result.losses, result.critic)
        # the logged loss is the trained one, with the ramped adversarial loss
        ramps = {"adversarial": self._ramp}
        figures = {
            "loss": torch.stack([task.total * ramps.get(task.task, 1.0) for task in result.losses]).sum(),
            **dict(pair for task in tasks for pair in task.named()),
            **dict(result.balance.named() if result.balance else ()),
            "gradient_norm": result.gradient_norm,
            "skipped_steps": self.nonfinite.counts.sum(),
            "reconstruction_psnr": -10 * torch.log10(self.model.decoder.variance),
            "effective_components": effective_components(result.log_weights.exp(), result.valid),
            "codebook_perplexity": codebook_perplexity(result.tokens, result.valid, self.config.model.tokenizer.codes),
            "learning_rate": torch.tensor(self.optimizers[0].param_groups[0]["lr"]),
        }
        skipped = {f"skipped_steps/{cause}": float(count) for cause, count in self.nonfinite.by_cause.items()}
        if self.adversary is not None:
            figures["skipped_critic_steps"] = self.adversary.nonfinite.counts.sum()
        return {name: float(value.detach()) for name, value in figures.items()} | skipped
