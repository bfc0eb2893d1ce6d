"""Attention blocks: multi-head attention, rotary positions, windowed causal attention over time with a cache."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn


def rotary(vectors: Float[Tensor, "... T dim"], positions: Float[Tensor, " T"]) -> Float[Tensor, "... T dim"]:
    """Rotate pairs of coordinates by position · frequency, so that inner products depend on relative position only.

    Reference: Su et al. 2021 (RoFormer), arXiv 2104.09864, equation 34; frequencies 10000^(-2i/dim).
    """
    half = vectors.shape[-1] // 2
    exponents = torch.arange(half, device=vectors.device, dtype=positions.dtype) / half
    angles = positions[:, None] * 10000.0**-exponents
    cosine, sine = angles.cos().to(vectors.dtype), angles.sin().to(vectors.dtype)
    first, second = vectors.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


def attend(
    query: Float[Tensor, "*N Q dim"],
    key: Float[Tensor, "*N M dim"],
    value: Float[Tensor, "*N M dim"],
    seen: Bool[Tensor, "*N Q M"] | None = None,
    bias: Float[Tensor, "*N Q M"] | None = None,
) -> Float[Tensor, "*N Q dim"]:
    """softmax(q kᵀ / √dim + bias) v where `seen` is True (Vaswani et al. 2017, arXiv 1706.03762, equation 1).

    On a GPU this is torch's fused kernel. On a CPU, plain products are 5 to 13 times faster in bf16 at these sizes
    (tens of queries of 16 numbers).
    """
    if query.is_cuda:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=_mask(seen, bias, query.dtype))
    scores = (query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    return scores.softmax(dim=-1) @ value


def _mask(
    seen: Bool[Tensor, "*N Q M"] | None, bias: Float[Tensor, "*N Q M"] | None, dtype: torch.dtype
) -> Tensor | None:
    """The mask and the bias as one tensor, as the fused kernel requires."""
    if bias is None or seen is None:
        return seen if bias is None else bias.to(dtype)
    return bias.to(dtype).masked_fill(~seen, float("-inf"))


class FeedForward(nn.Sequential):
    """Pre-normalised two-layer perceptron with GELU, `[...,width]` to the same shape."""

    def __init__(self, width: int, expansion: int = 2) -> None:
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, expansion * width),
            nn.GELU(),
            nn.Linear(expansion * width, width),
        )


class MultiHeadAttention(nn.Module):
    """Pre-normalised multi-head attention of queries on a memory, without the residual sum.

    Dropout applies to the result, not to the attention weights, so that the fused kernel can be used.
    """

    def __init__(self, width: int, memory: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_query = nn.LayerNorm(width)
        self.norm_memory = nn.LayerNorm(memory)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(memory, 2 * width, bias=False)
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        queries: Float[Tensor, "N Q width"],
        memory: Float[Tensor, "N M memory"],
        bias: Float[Tensor, "N heads Q M"] | None = None,
    ) -> Float[Tensor, "N Q width"]:
        """Attend from `[N,Q,width]` to `[N,M,memory]`; a single row of queries `[1,Q,width]` is broadcast over N.

        `bias` is added to the scores and is broadcast over axes of size 1.
        """
        query = rearrange(self.query(self.norm_query(queries)), "n q (h d) -> n h q d", h=self.heads)
        key, value = rearrange(
            self.key_value(self.norm_memory(memory)), "n m (two h d) -> two n h m d", two=2, h=self.heads
        )
        query = query.expand(key.shape[0], -1, -1, -1)
        attended = attend(query, key, value, bias=bias)
        return self.dropout(self.output(rearrange(attended, "n h q d -> n q (h d)")))


class TimeCache(NamedTuple):
    """Keys and values of the last W frames, where W is the attention window minus one."""

    keys: Float[Tensor, "B N heads W dim"]
    values: Float[Tensor, "B N heads W dim"]
    filled: Bool[Tensor, "B W"]


class CausalTimeAttention(nn.Module):
    """Pre-normalised attention over the last `window` frames, separately for each latent index.

    Positions are rotary, so a sequence may have any length.
    """

    def __init__(self, width: int, heads: int, window: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, latents: Float[Tensor, "B T N width"], cache: TimeCache | None = None
    ) -> tuple[Float[Tensor, "B T N width"], TimeCache | None]:
        """Attend from each of T frames to itself and the window - 1 frames before it.

        Args:
            latents: of T consecutive frames.
            cache: of the preceding frames; None at the start of all sequences.

        Returns:
            The attended latents, and the updated cache; None if none was given.
        """
        batch, length, count = latents.shape[:3]
        projected = self.query_key_value(self.norm(latents))
        query, key, value = rearrange(projected, "b t n (three h d) -> three b n h t d", three=3, h=self.heads)
        time = torch.arange(length + (0 if cache is None else cache.filled.shape[1]), device=latents.device)
        positions = time.to(torch.promote_types(latents.dtype, torch.float32))
        age = time[-length:, None] - time[None, :]
        seen = (age >= 0) & (age < self.window)
        if cache is not None:
            cache = _lengthened(cache, key, value)
            key, value = cache.keys, cache.values
            seen = repeat(seen & cache.filled[:, None], "b t m -> (b n) 1 t m", n=count)
            cache = TimeCache(key[..., length:, :], value[..., length:, :], cache.filled[:, length:])
        query, key, value = (
            rearrange(each, "b n h t d -> (b n) h t d")
            for each in (rotary(query, positions[-length:]).to(value.dtype), rotary(key, positions), value)
        )
        attended = attend(query, key, value, seen)
        return self.dropout(self.output(rearrange(attended, "(b n) h t d -> b t n (h d)", b=batch))), cache

    def empty_cache(self, batch: int, latents: int, like: Tensor) -> TimeCache:
        """The cache before the first frame of `batch` sequences, with the type and device of `like`."""
        width, kept = self.output.in_features, self.window - 1
        keys = like.new_zeros(batch, latents, self.heads, kept, width // self.heads)
        filled = torch.zeros(batch, kept, dtype=torch.bool, device=like.device)
        return TimeCache(keys, torch.zeros_like(keys), filled)


def _lengthened(
    cache: TimeCache, key: Float[Tensor, "B N heads T dim"], value: Float[Tensor, "B N heads T dim"]
) -> TimeCache:
    """The cache extended by new frames."""
    filled = torch.cat([cache.filled, cache.filled.new_ones(cache.filled.shape[0], key.shape[-2])], dim=1)
    keys = torch.cat([cache.keys, key.to(cache.keys.dtype)], dim=-2)
    values = torch.cat([cache.values, value.to(cache.values.dtype)], dim=-2)
    # a weight of 0 times a non-finite value is NaN, and the past of a reset row may be non-finite
    for kept in (keys, values):
        kept.masked_fill_(~filled[:, None, None, :, None], 0)
    return TimeCache(keys, values, filled)
