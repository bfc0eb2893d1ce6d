"""The perceiver task: frames reconstructed from tokens, and tokens from the Perceiver's latents.

References: van den Oord et al. 2017 (VQ-VAE), arXiv 1711.00937, equation 3; Jaegle et al. 2021 (Perceiver IO),
arXiv 2107.14795, section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from einops import rearrange

from aime.objectives.ledger import Scalar, frame_nats
from aime.objectives.passes import Pass
from aime.primitives.masked_mean import masked_mean


def vq_commitment(given: Pass) -> Scalar:
    """Half the squared distance of a frame's vectors from their codes, summed over cells and dimensions."""
    values = given.output.codes[0, 0].numel()
    return masked_mean(0.5 * values * given.output.commitment, given.valid)


def tokenizer_reconstruction(given: Pass) -> Scalar | None:
    """-log p(x | codes) in nats, of a share of the clips; None without a Perceiver."""
    if not given.model.perceiver.reads_tokens:
        return None
    rows, valid = given.redrawn
    frames = given.frames[rows]
    squared_error = (given.model.redraw(given.output.codes[rows]) - frames).square().mean(dim=(2, 3, 4))
    return frame_nats(squared_error, valid, frames[0, 0].numel())


def token_reconstruction(given: Pass) -> Scalar | None:
    """Cross-entropy of the same clips' token indices under the Perceiver's output queries; None without one."""
    if not given.model.perceiver.reads_tokens:
        return None
    rows, valid = given.redrawn
    logits = given.model.perceiver.token_logits(given.output.perceiver_latents[rows].flatten(0, 1))
    tokens = rearrange(given.output.tokens[rows], "b t h w -> (b t) (h w)")
    cross_entropy = F.cross_entropy(rearrange(logits.float(), "n s k -> n k s"), tokens, reduction="none")
    return masked_mean(rearrange(cross_entropy.sum(-1), "(b t) -> b t", b=len(rows)), valid)


TERMS: Mapping[str, Callable[[Pass], Scalar | None]] = {
    "vq_commitment": vq_commitment,
    "tokenizer_reconstruction": tokenizer_reconstruction,
    "token_reconstruction": token_reconstruction,
}
"""The terms by the names of `PerceiverWeights`."""
