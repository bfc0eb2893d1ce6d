"""Agents: what acts with a trained world model, and the environments that they act in."""

from __future__ import annotations

from aime.agents.registration import register_environments

register_environments()
