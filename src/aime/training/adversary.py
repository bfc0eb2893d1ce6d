"""The second phase of a step: the discriminators, their optimizer, and when each side listens to the other."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from aime.objectives.adversarial import (
    AdversaryConfig,
    Windows,
    adversarial_loss,
    adversarial_ramp,
    discriminator_loss,
    draw_window_starts,
)
from aime.objectives.ledger import TaskLoss
from aime.objectives.weights import AdversarialWeights
from aime.primitives.ranks import average_over_ranks
from aime.representation.discriminators import Discriminators
from aime.training.nonfinite import NonfiniteSteps
from aime.world_model.model import AIME
from aime.world_model.outputs import SequenceOutput


class Adversary(nn.Module):
    """Discriminators that learn from the first step on, and whom the model hears after the warm-up."""

    def __init__(self, config: AdversaryConfig, weights: AdversarialWeights) -> None:
        super().__init__()
        self.config, self.weights = config, weights
        self.discriminators = Discriminators()
        self.optimizer = torch.optim.Adam(self.parameters(), lr=config.learning_rate, betas=config.betas, fused=True)
        self.nonfinite = NonfiniteSteps()

    def ramp(self, share: float) -> float:
        """The factor of the model's adversarial loss, in [0, 1], where `share` of the run is done."""
        return adversarial_ramp(share, self.config.warmup, self.config.ramp)

    def judge(
        self,
        model: AIME,
        output: SequenceOutput,
        frames: Float[Tensor, "B T 3 H W"],
        valid: Bool[Tensor, "B T"],
    ) -> TaskLoss:
        """The model's loss, not ramped; the discriminators get no gradient.

        It teaches the decoder how to draw what it is told. The frames that are judged are drawn again from latents and
        maps without gradient: a backward pass through them and all that sees would cost a third of a step, and teach
        a five-hundredth of what the likelihood teaches there.
        """
        places = draw_window_starts(valid, self.config.frames, self.discriminators.window)
        told = [places.of(each).detach().flatten(0, 1) for each in (output.latents, output.attention.shown)]
        windows = Windows(places.of(frames), model.draw(*told).unflatten(0, places.times.shape), places.of(valid))
        return adversarial_loss(self.discriminators, windows, self.weights)

    def learns(self, step: int) -> bool:
        """Whether the discriminators learn after `step` steps: in every `n_critic`-th of the model's."""
        return (step + 1) % self.config.n_critic == 0

    def differentiate(
        self,
        reconstructions: Float[Tensor, "B T 3 H W"],
        frames: Float[Tensor, "B T 3 H W"],
        valid: Bool[Tensor, "B T"],
    ) -> TaskLoss:
        """The discriminators' loss, whose gradient is left for their optimizer's step; reconstructions get none.

        The step is skipped if loss or gradient is not finite.
        """
        places = draw_window_starts(valid, self.config.frames, self.discriminators.window)
        windows = Windows(*(places.of(each) for each in (frames, reconstructions, valid)))
        loss = discriminator_loss(self.discriminators, windows)
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        gradients = [each.grad for each in self.parameters() if each.grad is not None]
        average_over_ranks(gradients)
        self.nonfinite.skip_if_nonfinite([self.optimizer], [loss], nn.utils.get_total_norm(gradients))
        return loss
