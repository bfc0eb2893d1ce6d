"""What loss terms read: a pass of the model over a batch, and clips of latents as the dynamics follows them.

Both compute what several terms share when the first of them asks for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from aime.data.clips import Targets
from aime.dynamics.latent_dynamics import LatentDynamics
from aime.dynamics.overshooting import Overshot, imagine_ahead
from aime.dynamics.states import Track
from aime.objectives.weights import OvershootConfig
from aime.primitives.draws import draw_valid_first
from aime.world_model.model import AIME
from aime.world_model.outputs import LatentClips, SequenceOutput

REDRAWN_SHARE = 0.5
"""Clips of a batch, drawn at random, whose frames and tokens are read back: the tokenizer's decoder takes more time
than any other part of a step, and the frames of a clip are much alike."""


@dataclass(eq=False)
class LatentPass:
    """Clips of latents without their frames, followed by the dynamics."""

    dynamics: LatentDynamics
    clips: LatentClips
    targets: Targets
    """Of the clips, masked where they are not to be learned."""
    overshoot: OvershootConfig = field(default_factory=OvershootConfig)
    followed: Track | None = None
    """The track of the clips, where there is one; else they are followed when a term asks for it."""

    @property
    def valid(self) -> Bool[Tensor, "B T"]:
        """False on padding."""
        return self.clips.valid

    @cached_property
    def track(self) -> Track:
        """Beliefs and priors along the clips."""
        if self.followed is not None:
            return self.followed
        return self.dynamics.scan(self.clips.latents, self.clips.contexts, self.clips.actions)

    @cached_property
    def overshot(self) -> Overshot:
        """Paths imagined from the clips' own states."""
        return imagine_ahead(self.dynamics, self.track, self.valid, self.overshoot.steps, self.overshoot.starts)


@dataclass(eq=False)
class Pass:
    """A pass of the model over a batch of clips."""

    model: AIME
    output: SequenceOutput
    frames: Float[Tensor, "B T 3 H W"]
    """In [0, 1]."""
    targets: Targets
    overshoot: OvershootConfig
    replayed: LatentClips | None = None
    """Clips of earlier batches, for the predictive task: a batch's own clips are few and their frames much alike."""

    @property
    def valid(self) -> Bool[Tensor, "B T"]:
        """False on padding."""
        return self.targets.valid

    @cached_property
    def squared_error(self) -> Float[Tensor, "B T H W"]:
        """Of the reconstruction, a mean over the colours."""
        return (self.output.reconstructions - self.frames).square().mean(dim=2)

    @cached_property
    def seen(self) -> LatentPass:
        """The batch's clips, with a gradient to perception."""
        own = self.output.clips(self.targets)
        return LatentPass(self.model.dynamics, own, self.targets, self.overshoot, self.output.track)

    @cached_property
    def remembered(self) -> LatentPass:
        """The batch's clips and the replayed ones, with a gradient to the dynamics alone."""
        clips = self.output.clips(self.targets)
        clips = clips if self.replayed is None else clips.join(self.replayed)
        return LatentPass(self.model.dynamics, clips, clips.targets, self.overshoot)

    @cached_property
    def redrawn(self) -> tuple[Int[Tensor, " N"], Bool[Tensor, "N T"]]:
        """The clips whose frames and tokens are read back, and which of their frames count."""
        whole = self.valid.any(1)
        rows = draw_valid_first(whole, math.ceil(REDRAWN_SHARE * len(self.frames)))
        # clips that are padding throughout make the share no larger
        counted = torch.arange(len(rows), device=rows.device) < (REDRAWN_SHARE * whole.sum()).ceil()
        return rows, self.valid[rows] & counted[:, None]
