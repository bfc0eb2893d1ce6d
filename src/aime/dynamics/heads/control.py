"""The control pillar: heads and action schema of one model."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from aime.dynamics.heads.action_schema import ActionSchema
from aime.dynamics.heads.arrival import ContinuationHead, RewardHead
from aime.dynamics.heads.config import ControlConfig


class Control(nn.Module):
    """Reward and continuation on arrival at frame t, and the action there, all from (h_{t-1}, z_t, z_t - z_{t-1})."""

    rewards_seen: Int[Tensor, ""]
    """Rewards other than 0 that the reward head has learned from; -1 where an earlier version did not count them."""

    def __init__(self, config: ControlConfig, belief: int, latent: int, action: int) -> None:
        super().__init__()
        self.reward = RewardHead(config, belief, latent)
        self.continuation = ContinuationHead(config, belief, latent)
        self.action_schema = ActionSchema(config, belief, latent, action)
        self.register_buffer("rewards_seen", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def count_rewards(self, rewards: Float[Tensor, "B T"], valid: Bool[Tensor, "B T"]) -> None:
        """Count the rewards that the head learns from, those that are not 0; without a host sync."""
        more = ((rewards != 0) & valid).sum()
        self.rewards_seen.copy_(torch.where(more > 0, self.rewards_seen.clamp_min(0) + more, self.rewards_seen))

    def knows_rewards(self) -> Bool[Tensor, ""]:
        """Whether the reward head was trained on rewards; if they were not counted, whether it was trained."""
        learned = self.reward.logits.weight.detach().any()
        return torch.where(self.rewards_seen < 0, learned, self.rewards_seen > 0)
