"""The tasks of one training step, each from the model's typed output and the batch."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from aime.objectives.elbo import elbo_loss
from aime.objectives.ledger import TaskLoss
from aime.objectives.perceiver import perceiver_loss
from aime.objectives.predictive import predictive_loss
from aime.objectives.weights import LossWeights, OvershootConfig
from aime.world_model.model import AIME
from aime.world_model.outputs import LatentClips, SequenceOutput, Targets


class TaskLosses(NamedTuple):
    """The loss of every task, in nats per frame; a task may be `off`."""

    elbo: TaskLoss
    perceiver: TaskLoss
    predictive: TaskLoss


def task_losses(
    model: AIME,
    output: SequenceOutput,
    frames: Float[Tensor, "B T 3 H W"],
    targets: Targets,
    weights: LossWeights,
    overshoot: OvershootConfig,
    replayed: LatentClips | None = None,
) -> TaskLosses:
    """All task losses of a pass over frames in [0, 1]; `replayed` as in `LatentReplay`."""
    return TaskLosses(
        elbo_loss(model, output, frames, targets, weights),
        perceiver_loss(model, output, frames, targets.valid, weights),
        predictive_loss(model, output, frames, targets, weights, overshoot, replayed),
    )
