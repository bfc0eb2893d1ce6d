"""Prediction targets of a batch of clips, besides frames and actions."""

from __future__ import annotations

import torch

from aime.data import Clips
from aime.world_model.config import ModelConfig
from aime.world_model.outputs import Targets


def targets_of(clips: Clips, config: ModelConfig) -> Targets:
    """Rewards, terminations and states, with masks; states are NaN if the model observes none."""
    width = config.state.width
    states = clips.states
    if states is None or not width:
        states = torch.full((*clips.valid.shape, width), torch.nan, device=clips.valid.device)
    return Targets(clips.valid, clips.action_valid, clips.rewards, clips.reward_valid, clips.terminated, states)
