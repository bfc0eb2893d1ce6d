"""The perceiver task: tokens that say what a frame holds, and latents that say what the tokens were."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from aime.objectives.ledger import TaskLoss, gaussian_nats, masked_mean, weigh
from aime.objectives.weights import LossWeights
from aime.world_model.model import AIME
from aime.world_model.outputs import SequenceOutput

REDRAWN_SHARE = 0.5
"""Clips of a batch, drawn at random, whose frames and tokens are read back: the tokenizer's decoder is the dearest part
of a step, and the frames of a clip are much alike."""


class PerceiverTerms(NamedTuple):
    """Scalars, per frame."""

    vq_commitment: Float[Tensor, ""]
    """Half the squared distance of a frame's vectors from their codes, summed over cells and dimensions."""
    tokenizer_reconstruction: Float[Tensor, ""]
    """-log p(x | codes) in nats, of a share of the clips."""
    token_reconstruction: Float[Tensor, ""]
    """Cross-entropy of the same clips' token indices under the Perceiver's output queries, in nats."""


def perceiver_loss(
    model: AIME,
    output: SequenceOutput,
    frames: Float[Tensor, "B T 3 H W"],
    valid: Bool[Tensor, "B T"],
    weights: LossWeights,
) -> TaskLoss:
    """Commitment, pixels from codes, and tokens from latents.

    References: van den Oord et al. 2017 (VQ-VAE), arXiv 1711.00937, equation 3; Jaegle et al. 2021 (Perceiver IO),
    arXiv 2107.14795, section 3.1.
    """
    shown = torch.randperm(len(frames), device=frames.device)[: math.ceil(REDRAWN_SHARE * len(frames))]
    squared_error = (model.redraw(output.codes[shown]) - frames[shown]).square().mean(dim=(2, 3, 4))
    variance = masked_mean(squared_error, valid[shown]).detach().clamp_min(1e-6)
    logits = model.perceiver.token_logits(output.perceiver_latents[shown].flatten(0, 1))
    cross_entropy = F.cross_entropy(
        rearrange(logits.float(), "n s k -> n k s"),
        rearrange(output.tokens[shown], "b t h w -> (b t) (h w)"),
        reduction="none",
    )
    per_frame = rearrange(cross_entropy.sum(-1), "(b t) -> b t", b=len(shown))
    values = output.codes[0, 0].numel()
    terms = PerceiverTerms(
        vq_commitment=masked_mean(0.5 * values * output.commitment, valid),
        tokenizer_reconstruction=masked_mean(
            gaussian_nats(squared_error, variance, frames[0, 0].numel()), valid[shown]
        ),
        token_reconstruction=masked_mean(per_frame, valid[shown]),
    )
    return weigh("perceiver", terms, weights.perceiver)
