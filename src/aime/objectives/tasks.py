"""The tasks of a training step, each a table of terms over one pass of the model."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from aime.data.clips import Targets
from aime.dynamics.latent_dynamics import LatentDynamics
from aime.objectives import elbo, latents, perceiver, predictive
from aime.objectives.ledger import TaskLoss, weigh
from aime.objectives.passes import LatentPass, Pass
from aime.objectives.weights import LossWeights, OvershootConfig
from aime.primitives.masked_mean import masked_mean
from aime.world_model.model import AIME
from aime.world_model.outputs import LatentClips, SequenceOutput


class TaskLosses(NamedTuple):
    """The losses of the three tasks that need no discriminator, in nats per frame; a task may be `off`."""

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
    """All task losses of a pass over frames in [0, 1], and the decoder's variance calibrated on them."""
    given = Pass(model, output, frames, targets, overshoot, replayed)
    model.decoder.calibrate(masked_mean(given.squared_error.mean(dim=(2, 3)), given.valid))
    return TaskLosses(
        weigh("elbo", elbo.TERMS, given, weights.elbo),
        weigh("perceiver", perceiver.TERMS, given, weights.perceiver),
        weigh("predictive", predictive.TERMS, given, weights.predictive),
    )


def latent_losses(
    dynamics: LatentDynamics, clips: LatentClips, weights: LossWeights, elsewhere: Bool[Tensor, " B"] | None = None
) -> tuple[TaskLoss, TaskLoss]:
    """The terms of ELBO and predictive task, one step ahead, of clips whose frames are not at hand.

    That includes what the mixture's weights cost, with the weights of joint training: the likelihood of latents alone
    drives the sticks' divergence up without bound. For clips that are `elsewhere`, moved to another scene than the one
    they were recorded in, only the terms of the latents apply: the recorded targets are masked.
    """
    targets = clips.targets if elsewhere is None else clips.targets.only(~elsewhere)
    given = LatentPass(dynamics, clips, targets)
    of_elbo = {name: latents.ELBO_TERMS.get(name, _absent) for name in elbo.TERMS}
    ahead = {name: latents.ONE_STEP_TERMS.get(name, _absent) for name in predictive.TERMS}
    return weigh("elbo", of_elbo, given, weights.elbo), weigh("predictive", ahead, given, weights.predictive)


def _absent(given: LatentPass) -> None:
    """A term that needs frames."""
