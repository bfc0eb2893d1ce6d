"""A trained world model's hands: agents that imitate, learn in imagination, or plan, and worlds for them to act in."""

from __future__ import annotations

from aime.agents.registration import register_environments

register_environments()
