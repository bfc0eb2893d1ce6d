"""A trained world model's hands: agents that imitate, learn in imagination, or plan."""

from __future__ import annotations
