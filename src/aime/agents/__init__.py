"""Agents that act with a trained world model: imitate, learn in imagination, plan."""

from __future__ import annotations

from aime.environments import register_environments

register_environments()  # ids of earlier versions begin with "aime.agents:"
