"""Recording of environments: policies, distractors, and the processes that record shards."""

from __future__ import annotations

from aime.data.collect.collect import collect
from aime.data.collect.environment import ControlSuite, Environment
from aime.data.collect.gym_world import GymRecording, GymWorld
from aime.data.collect.recording import Recording, record_episode

__all__ = ["ControlSuite", "Environment", "GymRecording", "GymWorld", "Recording", "collect", "record_episode"]
