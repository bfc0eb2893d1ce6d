"""Agents that act with a trained world model: imitate, learn in imagination, plan; and environments."""

from __future__ import annotations

from aime.agents.registration import register_environments

register_environments()
