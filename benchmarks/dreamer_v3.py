"""The peer: DreamerV3's world model from torchrl's own parts (the extra `bench`), on the clips that AIME trains on.

Hafner et al. 2023, "Mastering Diverse Domains through World Models", arXiv 2301.04104: encoder, block-GRU recurrent
state-space model with categorical latents, decoder; reconstruction and the two KL terms, with the paper's weights. It
has no reward and continuation heads, as AIME has none either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.modules.models.model_based import (
    DreamerV3ImageDecoder,
    DreamerV3ImageEncoder,
    RSSMPosteriorV3,
    RSSMPriorV3,
    RSSMRolloutV3,
)
from torchrl.objectives import categorical_kl_terms

UNIMIX, FREE_NATS = 0.01, 1.0
DYNAMICS_WEIGHT, REPRESENTATION_WEIGHT = 1.0, 0.1
DECODED_AT_ONCE = 256


@dataclass(frozen=True)
class DreamerV3Config:
    """Sizes; the defaults have about as many parameters as AIME's `tiny`."""

    action_width: int
    image_size: int = 64
    depth: int = 16
    mults: tuple[int, ...] = (2, 3, 4, 4)
    hidden: int = 256
    belief: int = 512
    blocks: int = 8
    categoricals: int = 16
    classes: int = 16


class Losses(NamedTuple):
    """Means over frames, unweighted."""

    reconstruction: Float[Tensor, ""]
    """Squared error summed over the values of a frame."""
    dynamics: Float[Tensor, ""]
    representation: Float[Tensor, ""]

    @property
    def total(self) -> Float[Tensor, ""]:
        """The paper's weighted sum, equation 5."""
        return self.reconstruction + DYNAMICS_WEIGHT * self.dynamics + REPRESENTATION_WEIGHT * self.representation


class DreamerV3(nn.Module):
    """World model of `[B,T]` frames; action t is taken after frame t, as everywhere here."""

    def __init__(self, config: DreamerV3Config) -> None:
        super().__init__()
        self.config = config
        self.state_width = config.categoricals * config.classes
        shape = (3, config.image_size, config.image_size)
        self.encoder = DreamerV3ImageEncoder(depth=config.depth, mults=config.mults)
        sizes = dict(
            hidden_dim=config.hidden,
            rnn_hidden_dim=config.belief,
            num_categoricals=config.categoricals,
            num_classes=config.classes,
            unimix=UNIMIX,
        )
        self.prior = RSSMPriorV3(
            action_shape=(config.action_width,),
            action_dim=config.action_width,
            recurrent_model="block_gru",
            num_blocks=config.blocks,
            **sizes,
        )
        self.posterior = RSSMPosteriorV3(obs_embed_dim=self.encoder.output_features(shape), use_rms_norm=True, **sizes)
        self.decoder = DreamerV3ImageDecoder(
            self.state_width + config.belief, shape, config.depth, config.mults, num_blocks=config.blocks
        )
        told = [("next", "prior_logits"), ("next", "state"), ("next", "belief")]
        self.rollout = RSSMRolloutV3(
            TensorDictModule(self.prior, in_keys=["state", "belief", "action"], out_keys=told),
            TensorDictModule(
                self.posterior,
                in_keys=[("next", "belief"), ("next", "encoded_latents")],
                out_keys=[("next", "posterior_logits"), ("next", "state")],
            ),
        )
        # as AIME keeps its weights
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def observe(self, frames: Float[Tensor, "B T 3 H W"], actions: Float[Tensor, "B T A"]) -> TensorDict:
        """Posterior and prior logits, states and beliefs of all frames, a step at a time."""
        batch, length = frames.shape[:2]
        before = torch.cat([torch.zeros_like(actions[:, :1]), actions[:, :-1]], dim=1)
        first = torch.zeros(batch, length, 1, dtype=torch.bool, device=frames.device)
        first[:, 0] = True
        given = TensorDict(
            {
                "state": frames.new_zeros(batch, length, self.state_width),
                "belief": frames.new_zeros(batch, length, self.config.belief),
                "action": before,
                "is_init": first,
                "next": {"encoded_latents": self.encoder(frames)},
            },
            [batch, length],
        )
        return self.rollout(given)["next"]

    def forward(self, frames: Float[Tensor, "B T 3 H W"], actions: Float[Tensor, "B T A"]) -> Losses:
        """The losses of frames in [0, 1] and actions in [-1, 1]."""
        seen = self.observe(frames, actions)
        decoded = self.decoder(seen["state"], seen["belief"])
        error = (decoded.float() - frames).square().sum((-3, -2, -1)).mean()
        return Losses(
            error,
            *categorical_kl_terms(seen["posterior_logits"].float(), seen["prior_logits"].float(), FREE_NATS, UNIMIX),
        )

    @torch.no_grad()
    def dream(
        self,
        state: Float[Tensor, "N state"],
        belief: Float[Tensor, "N belief"],
        actions: Float[Tensor, "N F A"],
        sample: bool = True,
    ) -> tuple[Float[Tensor, "N F state"], Float[Tensor, "N F belief"]]:
        """States sampled from the prior, or its likeliest classes, and beliefs, after each action."""
        states, beliefs = [], []
        for action in actions.unbind(1):
            logits, state, belief = self.prior(state, belief, action)
            if not sample:
                state = nn.functional.one_hot(logits.argmax(-1), self.config.classes).flatten(-2).to(belief)
            states.append(state)
            beliefs.append(belief)
        return torch.stack(states, 1), torch.stack(beliefs, 1)

    @torch.no_grad()
    def decode(self, states: Float[Tensor, "N state"], beliefs: Float[Tensor, "N belief"]) -> Float[Tensor, "N 3 H W"]:
        """Frames in [0, 1], in bounded memory."""
        pairs = zip(states.split(DECODED_AT_ONCE), beliefs.split(DECODED_AT_ONCE), strict=True)
        return torch.cat([self.decoder(*pair) for pair in pairs]).clamp(0, 1)

    @torch.no_grad()
    def predict_future(
        self, context: Float[Tensor, "B C 3 H W"], actions: Float[Tensor, "B CF A"], samples: int | None, seed: int = 0
    ) -> Float[Tensor, "B S F 3 H W"]:
        """Futures in [0, 1]: sampled, or without `samples` the one of the likeliest classes."""
        torch.manual_seed(seed)
        count, repeats = context.shape[1], samples or 1
        seen = self.observe(context, actions[:, :count])
        state, belief, future = (
            repeat(each, "b ... -> (b s) ...", s=repeats)
            for each in (seen["state"][:, -1], seen["belief"][:, -1], actions[:, count - 1 : -1])
        )
        states, beliefs = self.dream(state, belief, future, samples is not None)
        frames = self.decode(states.flatten(0, 1), beliefs.flatten(0, 1))
        return rearrange(frames, "(b s f) c h w -> b s f c h w", b=len(context), s=repeats).float()
