"""Vector quantisation with an exponential-moving-average codebook."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from aime.primitives.draws import draw_with_replacement
from aime.primitives.ranks import rank, ranks, total_over_ranks


class Quantized(NamedTuple):
    """A quantised grid of vectors."""

    codes: Float[Tensor, "N code H W"]
    """The nearest code of each cell, with a straight-through gradient to the vectors."""
    indices: Int[Tensor, "N H W"]
    commitment: Float[Tensor, " N"]
    """Mean squared distance of a frame's vectors from their codes, per dimension; no gradient to the codes."""


class VectorQuantizer(nn.Module):
    """Nearest-code quantiser whose codes are moving averages of the vectors assigned to them.

    Rarely used codes are replaced by vectors drawn from the batch; so the first training batch initialises the
    codebook. A batch with a non-finite vector does not change the codebook, nor does padding. The batches of all ranks
    count as one.

    References: van den Oord et al. 2017, arXiv 1711.00937, equations 1-3 and appendix A.1 (EMA);
    Dhariwal et al. 2020 (Jukebox), arXiv 2005.00341, section 3.1 (revival).
    """

    codebook: Tensor
    usage: Tensor
    sums: Tensor

    def __init__(self, codes: int, width: int, decay: float = 0.9, dead_share: float = 0.3) -> None:
        super().__init__()
        self.decay, self.dead_share = decay, dead_share
        self.register_buffer("codebook", torch.randn(codes, width))
        self.register_buffer("usage", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, width))

    def forward(self, vectors: Float[Tensor, "N code H W"], valid: Bool[Tensor, " N"] | None = None) -> Quantized:
        """Quantise `[N,code,H,W]`; in training mode the codebook is updated, without gradients.

        Args:
            vectors: of N frames.
            valid: False for padding; None if all frames are valid.
        """
        flat = rearrange(vectors, "n d h w -> (n h w) d").to(self.codebook.dtype)
        if self.training:
            counted = torch.ones_like(flat[:, 0], dtype=torch.bool)
            if valid is not None:
                counted = valid.repeat_interleave(flat.shape[0] // vectors.shape[0])
            broken = (~flat.detach().isfinite().all(-1) & counted).any()
            bad, total = total_over_ranks(torch.stack([broken, counted.sum()]).to(flat.dtype)).unbind()
            usable = (bad == 0) & (total > 0)
            self._revive(flat.detach(), counted, total, usable)
        indices = self._nearest(flat.detach())
        codes = F.embedding(indices, self.codebook)
        frames = vectors.shape[0]
        commitment = rearrange((flat - codes).square().mean(-1), "(n s) -> n s", n=frames).mean(-1)
        if self.training:
            self._update(flat.detach(), counted, indices, usable)
        straight_through = flat + (codes - flat).detach()
        grid = {"n": frames, "h": vectors.shape[2]}
        return Quantized(
            rearrange(straight_through, "(n h w) d -> n d h w", **grid),
            rearrange(indices, "(n h w) -> n h w", **grid),
            commitment,
        )

    def lookup(self, indices: Int[Tensor, "N H W"]) -> Float[Tensor, "N code H W"]:
        """The code vectors of a grid of indices in 0..codes-1."""
        return rearrange(F.embedding(indices, self.codebook), "n h w d -> n d h w")

    def _nearest(self, flat: Float[Tensor, "M code"]) -> Int[Tensor, " M"]:
        # |v - c|² without |v|², which is the same for all codes: needs only a matrix product
        return (self.codebook.square().sum(-1) - 2 * flat @ self.codebook.T).argmin(-1)

    @torch.no_grad()
    def _revive(
        self, flat: Float[Tensor, "M code"], counted: Bool[Tensor, " M"], total: Float[Tensor, ""], usable: Tensor
    ) -> None:
        expected = total / self.codebook.shape[0]
        dead = (self.usage < self.dead_share * expected) & usable
        chosen = flat[draw_with_replacement(counted, self.codebook.shape[0])]
        if ranks() > 1:  # each rank provides the vectors of its share of the codes
            mine = torch.arange(len(chosen), device=flat.device) % ranks() == rank()
            chosen = total_over_ranks(torch.where(mine[:, None], chosen, 0))
        self.codebook.copy_(torch.where(dead[:, None], chosen, self.codebook))
        self.sums.copy_(torch.where(dead[:, None], chosen * expected, self.sums))
        self.usage.copy_(torch.where(dead, expected, self.usage))

    @torch.no_grad()
    def _update(
        self, flat: Float[Tensor, "M code"], counted: Bool[Tensor, " M"], indices: Int[Tensor, " M"], usable: Tensor
    ) -> None:
        counts = torch.zeros_like(self.usage).index_add_(0, indices, counted.to(flat.dtype))
        sums = torch.zeros_like(self.sums).index_add_(0, indices, torch.where(counted[:, None], flat, 0))
        counts, sums = total_over_ranks(counts), total_over_ranks(sums)
        self.usage.lerp_(torch.where(usable, counts, self.usage), 1 - self.decay)
        self.sums.lerp_(torch.where(usable, sums, self.sums), 1 - self.decay)
        self.codebook.copy_(self.sums / self.usage.clamp_min(1e-5)[:, None])


def codebook_perplexity(indices: Int[Tensor, "*N h w"], valid: Bool[Tensor, "*N"], codes: int) -> Float[Tensor, ""]:
    """exp(entropy) of the codes' shares in valid frames: the effective number of codes, 1..codes."""
    counted = valid[..., None, None].expand_as(indices).double()
    shares = torch.bincount(indices.flatten(), counted.flatten(), minlength=codes)
    shares = shares / shares.sum().clamp_min(1)
    return torch.special.entr(shares).sum().exp().float()
