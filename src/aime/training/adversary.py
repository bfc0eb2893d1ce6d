"""Adversarial training: the discriminators, their optimizer and both sides' losses."""

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
    """Discriminators, which learn from the first step; the model's adversarial loss starts after the warm-up."""

    def __init__(self, config: AdversaryConfig, weights: AdversarialWeights) -> None:
        super().__init__()
        self.config, self.weights = config, weights
        self.discriminators = Discriminators()
        self.optimizer = torch.optim.Adam(self.parameters(), lr=config.learning_rate, betas=config.betas, fused=True)
        self.nonfinite = NonfiniteSteps()

    def ramp(self, share: float) -> float:
        """The factor of the model's adversarial loss, in [0, 1], when a fraction `share` of the run is done."""
        return adversarial_ramp(share, self.config.warmup, self.config.ramp)

    def generator_loss(
        self,
        model: AIME,
        output: SequenceOutput,
        frames: Float[Tensor, "B T 3 H W"],
        valid: Bool[Tensor, "B T"],
    ) -> TaskLoss:
        """The model's adversarial loss, not ramped; the discriminators get no gradient.

        Only the decoder gets a gradient: frames are decoded again from detached latents and maps. A gradient through
        latents and encoder would cost a third of a step and is 500 times smaller there than that of the likelihood.
        """
        starts = draw_window_starts(valid, self.config.frames, self.discriminators.window)
        inputs = [starts.of(each).detach().flatten(0, 1) for each in (output.latents, output.attention.shown)]
        windows = Windows(starts.of(frames), model.draw(*inputs).unflatten(0, starts.times.shape), starts.of(valid))
        return adversarial_loss(self.discriminators, windows, self.weights)

    def learns(self, step: int) -> bool:
        """Whether the discriminators take a step after `step` steps: one per `n_critic` steps of the model."""
        return (step + 1) % self.config.n_critic == 0

    def critic_backward(
        self,
        reconstructions: Float[Tensor, "B T 3 H W"],
        frames: Float[Tensor, "B T 3 H W"],
        valid: Bool[Tensor, "B T"],
    ) -> TaskLoss:
        """Compute the discriminators' loss and leave its gradient in `.grad`; reconstructions get no gradient.

        The optimizer skips its step if loss or gradient is not finite.
        """
        starts = draw_window_starts(valid, self.config.frames, self.discriminators.window)
        windows = Windows(*(starts.of(each) for each in (frames, reconstructions, valid)))
        loss = discriminator_loss(self.discriminators, windows)
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        gradients = [each.grad for each in self.parameters() if each.grad is not None]
        average_over_ranks(gradients)
        self.nonfinite.skip_if_nonfinite([self.optimizer], [loss], nn.utils.get_total_norm(gradients))
        return loss
