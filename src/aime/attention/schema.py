"""The attention schema: what stands out and what is expected, joined to the map that modulates the decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from aime.attention.bottom_up import BottomUp, BottomUpAttention
from aime.attention.top_down import TopDown, TopDownAttention
from aime.errors import expect_sizes
from aime.primitives.boundary_layers import BoundaryLinear

GATE_MARGIN = 0.1
"""The gate stays within [0.1, 0.9], or it would learn to pick the prior map and the bottom-up one would die."""

OLDEST = 16
"""The most frames that the map behind an expectation is old in training."""


@dataclass(frozen=True)
class AttentionConfig:
    """Sizes and kind of the attention schema.

    Raises:
        AimeError: if a size is below 1.
    """

    kind: str = "schema"
    """`schema`, or `uniform`, which switches attention off: every map is 1/n on each of its n cells."""
    slots: int = 5
    """Number of slots."""
    width: int = 64
    """Width of a slot, and of the feature pyramid that the slots read."""
    rounds: ClassVar[int] = 3
    """Rounds of slot attention."""
    fusion: ClassVar[str] = "gated"
    """A_t is a weighted mean of U_t and P_t; see `AttentionSchema.fuse`."""
    precision: ClassVar[float] = 0.3
    """ρ: pixels weigh 1 - ρ + ρ·A, A with mean 1, in the reconstruction likelihood."""
    expected_share: ClassVar[float] = 0.5
    """Share of the training clips that are treated as in imagination: the prior map is made from an old map, and the
    decoder is given it."""

    def __post_init__(self) -> None:
        expect_sizes(self, "slots", "width", of="attention")

    @property
    def hidden(self) -> int:
        """Hidden width of the top-down network."""
        return 2 * self.width


class Attention(NamedTuple):
    """All maps of B videos of T frames; every map but the slots' sums to 1 over space."""

    fused: Float[Tensor, "B T h w"]
    """A_t, from the bottom-up and the prior map; its gradient goes to the former and the gate."""
    bottom_up: Float[Tensor, "B T h w"]
    """U_t, from x_t alone."""
    prior: Float[Tensor, "B T h w"]
    """P_t, from (h_{t-1}, z_t, U_{t-1}): it has not seen x_t."""
    motion: Float[Tensor, "B T 2"]
    """(dx, dy) in cells that the centre of mass is expected to move from frame t-1 to t, however old `last` is."""
    last: Float[Tensor, "B T h w"]
    """U_{t-1}, without gradient; a learned map before the first frame. In training mode U_{t-k} in some clips."""
    shown: Float[Tensor, "B T h w"]
    """What the decoder is given: A_t, in training mode P_t in the same clips."""
    slots: Float[Tensor, "B T S width"]
    slot_maps: Float[Tensor, "B T S h w"]
    """The share of each cell that each slot takes; sums to 1 over the slots."""
    slot_error: Float[Tensor, "B T"]
    """Half the squared distance of the features from their reconstruction by slots, summed over cells, channels."""


class AttentionPillar(nn.Module):
    """The interface of every kind of attention: a bottom-up map, a prior map, and one made of both."""

    expected_share: float = 0.0
    attends: ClassVar[bool] = True
    """Whether its maps differ from cell to cell, so that losses about them apply."""

    def look(self, pyramid: tuple[Tensor, ...]) -> BottomUp:
        """Slots and U_t of N frames, from the encoder's features at 1/2, 1/4 and 1/8 of the frame."""
        raise NotImplementedError

    def initial_map(self, batch: int) -> Float[Tensor, "B h w"]:
        """U_0, the map before the first frame."""
        raise NotImplementedError

    def expect(
        self,
        belief: Float[Tensor, "N belief"],
        latent: Float[Tensor, "N latent"],
        last_map: Float[Tensor, "N h w"],
        one_step: Bool[Tensor, " N"] | None = None,
    ) -> TopDown:
        """P_t and the motion of one step; sees no frame. `one_step` as in `TopDownAttention`."""
        raise NotImplementedError

    def fuse(
        self, bottom_up: Float[Tensor, "N h w"], prior: Float[Tensor, "N h w"], belief: Float[Tensor, "N belief"]
    ) -> Float[Tensor, "N h w"]:
        """A_t from U_t, P_t and h_{t-1}."""
        raise NotImplementedError

    def forward(
        self,
        seen: BottomUp,
        beliefs: Float[Tensor, "B T belief"],
        latents: Float[Tensor, "B T latent"],
        first_map: Float[Tensor, "B h w"] | None = None,
    ) -> Attention:
        """All maps of `[B,T]` frames at once, from what `look` saw in them, and the map before them, if not U_0.

        In imagination the last map seen grows old, and the decoder has prior maps alone. Were it only ever given maps
        that know the frame, or the frame before, it would read from them what the latent should say. So in training
        mode, in a share of the clips, P_t is made from U_{t-k}, k in 1..16 drawn for each clip, and shown. The motion
        is that of one step, and learns from P_t only where the map behind it is U_{t-1}.
        """
        batch, length = beliefs.shape[:2]
        bottom_up = rearrange(seen.map, "(b t) h w -> b t h w", b=batch)
        imagined, age = self._draw_ages(batch, beliefs.device)
        first_map = self.initial_map(batch) if first_map is None else first_map
        maps = torch.cat([first_map[:, None], bottom_up.detach()], dim=1)
        times = (torch.arange(1, length + 1, device=age.device) - age[:, None]).clamp_min(0)
        last = maps[torch.arange(batch, device=age.device)[:, None], times]
        # the schema is a model of attention on top of the belief: it reads belief and latent, and does not shape them
        flat = beliefs.detach().flatten(0, 1)
        one_step = (age[:, None] == 1) & (times > 0)
        expected = self.expect(flat, latents.detach().flatten(0, 1), last.flatten(0, 1), one_step.flatten())
        # P_t learns to predict, not to help draw
        fused = self.fuse(seen.map, expected.map.detach(), flat).unflatten(0, (batch, length))
        prior = expected.map.unflatten(0, (batch, length))
        return Attention(
            fused=fused,
            bottom_up=bottom_up,
            prior=prior,
            motion=expected.motion.unflatten(0, (batch, length)),
            last=last,
            shown=torch.where(imagined[:, None, None, None], prior.detach(), fused),
            slots=seen.slots.unflatten(0, (batch, length)),
            slot_maps=seen.slot_maps.unflatten(0, (batch, length)),
            slot_error=seen.slot_error.unflatten(0, (batch, length)),
        )

    def _draw_ages(self, batch: int, device: torch.device) -> tuple[Bool[Tensor, " B"], Int[Tensor, " B"]]:
        """The clips to treat as imagined, and how many frames old the last map is: 1 in all others."""
        youngest = torch.ones(batch, dtype=torch.long, device=device)
        if not self.training or not self.expected_share:
            return youngest > 1, youngest
        imagined = torch.rand(batch, device=device) < self.expected_share
        age = 1 + (OLDEST * torch.rand(batch, device=device)).long()
        return imagined, torch.where(imagined, age, youngest)

    def roll(
        self,
        beliefs: Float[Tensor, "N F belief"],
        latents: Float[Tensor, "N F latent"],
        last_map: Float[Tensor, "N h w"],
    ) -> Float[Tensor, "N F h w"]:
        """The prior maps of an imagined path, each from the one before: what stands for A_t where no frame is seen."""
        maps = []
        for belief, latent in zip(beliefs.unbind(1), latents.unbind(1), strict=True):
            last_map = self.expect(belief, latent, last_map).map
            maps.append(last_map)
        return torch.stack(maps, dim=1)


class AttentionSchema(AttentionPillar):
    """U_t from the frame, P_t from belief, latent and U_{t-1}, and A_t from both.

    Reference: Graziano & Webb 2015, the attention schema theory (Frontiers in Psychology 6:500), whose model of one's
    own attention the top-down map is.
    """

    def __init__(self, config: AttentionConfig, channels: tuple[int, ...], belief: int, latent: int, grid: int) -> None:
        super().__init__()
        self.config, self.expected_share = config, config.expected_share
        self.grid = grid
        self.bottom_up = BottomUpAttention(channels, config.slots, config.width, config.rounds, grid)
        self.top_down = TopDownAttention(belief, latent, config.hidden, grid)
        self.gate = nn.Sequential(nn.LayerNorm(belief), BoundaryLinear(belief, 1))
        self.initial_logits = nn.Parameter(torch.zeros(grid, grid))

    def look(self, pyramid: tuple[Tensor, ...]) -> BottomUp:
        """Slots and U_t of N frames, from the encoder's features at 1/2, 1/4 and 1/8 of the frame."""
        return self.bottom_up(pyramid)

    def initial_map(self, batch: int) -> Float[Tensor, "B h w"]:
        """U_0, which is learned."""
        flat = self.initial_logits.flatten().softmax(0).unflatten(0, self.initial_logits.shape)
        return repeat(flat, "h w -> b h w", b=batch)

    def expect(
        self,
        belief: Float[Tensor, "N belief"],
        latent: Float[Tensor, "N latent"],
        last_map: Float[Tensor, "N h w"],
        one_step: Bool[Tensor, " N"] | None = None,
    ) -> TopDown:
        """P_t and the motion of one step; sees no frame. `one_step` as in `TopDownAttention`."""
        return self.top_down(belief, latent, last_map, one_step)

    def fuse(
        self, bottom_up: Float[Tensor, "N h w"], prior: Float[Tensor, "N h w"], belief: Float[Tensor, "N belief"]
    ) -> Float[Tensor, "N h w"]:
        """A_t: g U + (1 - g) P with a gate g(h_{t-1}) in [0.1, 0.9]."""
        with torch.autocast(belief.device.type, enabled=False):
            gate = GATE_MARGIN + (1 - 2 * GATE_MARGIN) * torch.sigmoid(self.gate(belief))[..., None]
        return gate * bottom_up + (1 - gate) * prior
