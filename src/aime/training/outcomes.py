"""What a batch of clips holds beside its frames and actions."""

from __future__ import annotations

from aime.data import Clips
from aime.world_model.outputs import Outcomes


def outcomes_of(clips: Clips) -> Outcomes:
    """Its rewards and ends, and where anything is known."""
    return Outcomes(clips.valid, clips.action_valid, clips.rewards, clips.reward_valid, clips.terminated)
