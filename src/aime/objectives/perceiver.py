"""The perceiver task: tokens that say what a frame holds, and latents that say what the tokens were."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from aime.objectives.ledger import TaskLoss, gaussian_nats, unless_off, weigh
from aime.objectives.weights import LossWeights
from aime.primitives.draws import draw_counted_first
from aime.primitives.masked_mean import masked_mean
from aime.world_model.model import AIME
from aime.world_model.outputs import SequenceOutput

REDRAWN_SHARE = 0.5
"""Clips of a batch, drawn at random, whose frames and tokens are read back: the tokenizer's decoder is the dearest part
of a step, and the frames of a clip are much alike."""


class PerceiverTerms(NamedTuple):
    """Scalars, per frame; None where switched off.

    Without a Perceiver nothing reads the tokens, and only the commitment is left, which keeps codes and vectors close.
    """

    vq_commitment: Float[Tensor, ""] | None
    """Half the squared distance of a frame's vectors from their codes, summed over cells and dimensions."""
    tokenizer_reconstruction: Float[Tensor, ""] | None
    """-log p(x | codes) in nats, of a share of the clips."""
    token_reconstruction: Float[Tensor, ""] | None
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
    wanted = weights.perceiver
    values = output.codes[0, 0].numel()
    commitment = unless_off(wanted.vq_commitment, lambda: masked_mean(0.5 * values * output.commitment, valid))
    if not model.perceiver.reads_tokens:
        return weigh("perceiver", PerceiverTerms(commitment, None, None), wanted)
    perceiver = model.perceiver
    whole = valid.any(1)
    shown = draw_counted_first(whole, math.ceil(REDRAWN_SHARE * len(frames)))
    # clips that are padding throughout make the share no larger
    counted = torch.arange(len(shown), device=valid.device) < (REDRAWN_SHARE * whole.sum()).ceil()
    shown_valid = valid[shown] & counted[:, None]
    terms = PerceiverTerms(
        vq_commitment=commitment,
        tokenizer_reconstruction=unless_off(
            wanted.tokenizer_reconstruction,
            lambda: _redrawn_nats(model.redraw(output.codes[shown]), frames[shown], shown_valid),
        ),
        token_reconstruction=unless_off(
            wanted.token_reconstruction,
            lambda: _token_nats(
                perceiver.token_logits(output.perceiver_latents[shown].flatten(0, 1)),
                output.tokens[shown],
                shown_valid,
            ),
        ),
    )
    return weigh("perceiver", terms, wanted)


def _redrawn_nats(
    redrawn: Float[Tensor, "B T 3 H W"], frames: Float[Tensor, "B T 3 H W"], valid: Bool[Tensor, "B T"]
) -> Float[Tensor, ""]:
    squared_error = (redrawn - frames).square().mean(dim=(2, 3, 4))
    variance = masked_mean(squared_error, valid).detach().clamp_min(1e-6)
    return masked_mean(gaussian_nats(squared_error, variance, frames[0, 0].numel()), valid)


def _token_nats(
    logits: Float[Tensor, "N hw codes"], tokens: Int[Tensor, "B T h w"], valid: Bool[Tensor, "B T"]
) -> Float[Tensor, ""]:
    cross_entropy = F.cross_entropy(
        rearrange(logits.float(), "n s k -> n k s"), rearrange(tokens, "b t h w -> (b t) (h w)"), reduction="none"
    )
    return masked_mean(rearrange(cross_entropy.sum(-1), "(b t) -> b t", b=len(tokens)), valid)
