"""The control pillar: heads and action schema of one model."""

from __future__ import annotations

from torch import nn

from aime.control.action_schema import ActionSchema
from aime.control.config import ControlConfig
from aime.control.heads import ContinuationHead, RewardHead


class Control(nn.Module):
    """Reward and continuation on arrival at frame t, and the action there, all from (h_{t-1}, z_t, z_t - z_{t-1})."""

    def __init__(self, config: ControlConfig, belief: int, latent: int, action: int) -> None:
        super().__init__()
        self.reward = RewardHead(config, belief, latent)
        self.continuation = ContinuationHead(config, belief, latent)
        self.action_schema = ActionSchema(config, belief, latent, action)
