"""Tokens to a context vector per frame: a causal Perceiver IO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from aime.errors import expect_at_most, expect_sizes
from aime.primitives.boundary_layers import BoundaryLinear
from aime.primitives.transformer import CausalTimeAttention, FeedForward, MultiHeadAttention, TimeCache

MOST_FRAMES = 2**16
"""In the window of the attention over time, whose memory takes so much room for every clip."""


@dataclass(frozen=True)
class PerceiverConfig:
    """Kind and sizes of what makes tokens a context."""

    kind: str = "causal"
    """`causal`, or `none`, which switches the context off: c_t has width 0, and tokens are not used."""
    latents: int = 128
    """Number of Perceiver latents."""
    width: int = 256
    """Width of a Perceiver latent, a multiple of `heads`."""
    heads: ClassVar[int] = 4
    """Heads of every attention."""
    layers: int = 1
    """Self-attention layers between the read of a frame's tokens and the attention over time."""
    window: int = 32
    """Frames that the attention over time sees, the current one included."""
    dropout: ClassVar[float] = 0.1

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            AimeError: if a size is below 1, `window` above `MOST_FRAMES`.
        """
        expect_sizes(self, "latents", "width", "window", of="perceiver")
        expect_at_most(self, MOST_FRAMES, "window", of="perceiver")


class Percept(NamedTuple):
    """Contexts and latents of T frames."""

    contexts: Float[Tensor, "B T context"]
    latents: Float[Tensor, "B T N width"]


class ContextMaker(nn.Module):
    """The interface of every kind of perceiver: contexts of frames, of new videos or with a cache of earlier frames."""

    reads_tokens: ClassVar[bool] = True
    """Whether there is a context, and latents from which the tokens are reconstructed."""

    def forward(
        self,
        codes: Float[Tensor, "B T code h w"],
        attention: Float[Tensor, "B T y x"],
        cache: TimeCache | None = None,
    ) -> tuple[Percept, TimeCache | None]:
        """Contexts of all frames at once from code vectors and attention maps, finer than the codes and of sum 1.

        With the cache of earlier frames the videos go on, and the cache for later ones is returned.
        """
        raise NotImplementedError

    def empty_cache(self, batch: int, like: Float[Tensor, "..."]) -> TimeCache:
        """The cache before the first frame, in the type and on the device of `like`."""
        raise NotImplementedError

    def token_logits(self, latents: Float[Tensor, "N n width"]) -> Float[Tensor, "N hw codes"]:
        """Logits over the codebook for each cell of a frame, read from its latents."""
        raise NotImplementedError


class CausalPerceiver(ContextMaker):
    """Perceiver IO over video tokens: context c_t has seen frames 1..t, never a later one.

    A learned latent array cross-attends to each frame's tokens (code + 2-D position), attends to itself, then each
    latent attends causally over time; one output query reads the context, H·W others read the token indices back.
    Reference: Jaegle et al. 2021 (Perceiver IO), arXiv 2107.14795.
    """

    def __init__(self, config: PerceiverConfig, codes: int, code_width: int, grid: int, context: int) -> None:
        super().__init__()
        self.config = config
        width, heads, dropout = config.width, config.heads, config.dropout
        self.latents = nn.Parameter(torch.randn(1, config.latents, width) * 0.5)
        self.rows = nn.Parameter(torch.randn(grid, 1, code_width) * 0.5)
        self.columns = nn.Parameter(torch.randn(1, grid, code_width) * 0.5)
        self.attention_gain = nn.Parameter(torch.full((heads,), 0.1))
        self.read = MultiHeadAttention(width, code_width, heads, dropout)
        self.read_mlp = FeedForward(width)
        self.self_attentions = nn.ModuleList(
            MultiHeadAttention(width, width, heads, dropout) for _ in range(config.layers)
        )
        self.self_mlps = nn.ModuleList(FeedForward(width) for _ in range(config.layers))
        self.over_time = CausalTimeAttention(width, heads, config.window, dropout)
        self.time_mlp = FeedForward(width)
        self.context_query = nn.Parameter(torch.randn(1, 1, width) * 0.5)
        self.context_read = MultiHeadAttention(width, width, heads, dropout)
        self.context_head = nn.Sequential(nn.LayerNorm(width), BoundaryLinear(width, context), nn.LayerNorm(context))
        self.token_queries = nn.Parameter(torch.randn(1, grid * grid, width) * 0.5)
        self.token_read = MultiHeadAttention(width, width, heads, dropout)
        self.token_head = nn.Sequential(nn.LayerNorm(width), BoundaryLinear(width, codes))

    def forward(
        self,
        codes: Float[Tensor, "B T code h w"],
        attention: Float[Tensor, "B T y x"],
        cache: TimeCache | None = None,
    ) -> tuple[Percept, TimeCache | None]:
        """See `ContextMaker.forward`."""
        batch = codes.shape[0]
        read = self._read_frames(codes.flatten(0, 1), attention.flatten(0, 1))
        latents = rearrange(read, "(b t) n d -> b t n d", b=batch)
        update, cache = self.over_time(latents, cache)
        latents = latents + update
        latents = latents + self.time_mlp(latents)
        return Percept(rearrange(self._context(latents.flatten(0, 1)), "(b t) c -> b t c", b=batch), latents), cache

    def empty_cache(self, batch: int, like: Float[Tensor, "..."]) -> TimeCache:
        """The cache before the first frame, in the type and on the device of `like`."""
        return self.over_time.empty_cache(batch, self.config.latents, like)

    def token_logits(self, latents: Float[Tensor, "N n width"]) -> Float[Tensor, "N hw codes"]:
        """Logits over the codebook for each cell of a frame, read from its latents by positional output queries."""
        return self.token_head(self.token_queries + self.token_read(self.token_queries, latents))

    def _read_frames(
        self, codes: Float[Tensor, "N code h w"], attention: Float[Tensor, "N y x"]
    ) -> Float[Tensor, "N n width"]:
        placed = rearrange(codes, "n d h w -> n h w d") + (self.rows + self.columns)
        latents = self.latents + self.read(
            self.latents, rearrange(placed, "n h w d -> n (h w) d"), self._bias(attention, codes.shape[-1])
        )
        latents = latents + self.read_mlp(latents)
        for among, mlp in zip(self.self_attentions, self.self_mlps, strict=True):
            latents = latents + among(latents, latents)
            latents = latents + mlp(latents)
        return latents

    def _bias(self, attention: Float[Tensor, "N y x"], grid: int) -> Float[Tensor, "N heads 1 hw"]:
        """Each head's share of log(n·A) on the n cells of the codes: what is attended to is read more."""
        relative = F.avg_pool2d(attention, attention.shape[-1] // grid) * attention.shape[-1] ** 2
        return rearrange(relative.clamp_min(1e-3).log(), "n h w -> n 1 1 (h w)") * self.attention_gain[:, None, None]

    def _context(self, latents: Float[Tensor, "N n width"]) -> Float[Tensor, "N context"]:
        return self.context_head((self.context_query + self.context_read(self.context_query, latents))[:, 0])
