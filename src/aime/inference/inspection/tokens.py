"""What tokens cost to predict: read back from the Perceiver, and from what each cell usually shows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from aime.inference.probe import FOLDS
from aime.world_model.model import AIME
from aime.world_model.outputs import Sight


def token_nats(model: AIME, sight: Sight) -> Float[Tensor, "B T"] | None:
    """The cross-entropy of each frame's tokens, read back from the Perceiver's latents; None without a Perceiver."""
    if not model.perceiver.reads_tokens:
        return None
    tokens = sight.tokens.indices
    # one clip at a time: logits are cells x codes for each frame
    each = [model.perceiver.token_logits(latents) for latents in sight.percept.latents]
    return torch.stack([cross_entropy(logits, own) for logits, own in zip(each, tokens, strict=True)])


def cross_entropy(logits: Float[Tensor, "T hw codes"], tokens: Int[Tensor, "T h w"]) -> Float[Tensor, " T"]:
    """-log p of all tokens of a frame, in nats."""
    cells = rearrange(tokens, "t h w -> t (h w)")
    return F.cross_entropy(rearrange(logits.float(), "t s k -> t k s"), cells, reduction="none").sum(dim=1)


def histogram_nats(
    tokens: Int[Tensor, "B T h w"], episodes: Int[Tensor, " B"], codes: int
) -> Float[Tensor, "B T"] | None:
    """-log p of all tokens of a frame under the histogram of each cell, fitted to clips of other episodes.

        p(k) = (n_k + 1/codes) / (n + 1)

    The histogram is smoothed by one count in all, spread evenly over the codes. Episodes are divided into at most
    `FOLDS` groups, each left out in turn.

    Args:
        tokens: in 0..codes-1.
        episodes: the number of the episode of each clip.
        codes: how many there are.

    Returns:
        Nats of each frame; None where there is one episode.
    """
    group = episodes.unique(return_inverse=True)[1] % FOLDS
    if len(group.unique()) < 2:
        return None
    cells = rearrange(tokens, "b t h w -> b t (h w)")
    nats = torch.empty(cells.shape[:2], device=cells.device)
    for number in group.unique():
        out = group == number
        others = cells[~out].flatten(0, 1)
        counts = torch.zeros(others.shape[1], codes, device=cells.device)
        counts.scatter_add_(1, others.T, torch.ones_like(others.T, dtype=counts.dtype))
        log_share = ((counts + 1 / codes) / (len(others) + 1)).log()
        found = log_share.gather(1, cells[out].flatten(0, 1).T)
        nats[out] = found.sum(dim=0).neg().unflatten(0, (-1, cells.shape[1]))
    return nats
