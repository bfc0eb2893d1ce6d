"""Recording of environments: policies, distractors, and worker processes."""

from __future__ import annotations

from aime.io.collect.collect import collect
from aime.io.collect.environment import ControlSuite, Environment
from aime.io.collect.gym_world import GymRecording, GymWorld
from aime.io.collect.recording import Recording, record_episode

__all__ = ["ControlSuite", "Environment", "GymRecording", "GymWorld", "Recording", "collect", "record_episode"]
