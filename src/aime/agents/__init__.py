"""Agents that act with a trained world model: imitate, learn in imagination, plan; and the dream as an environment.

gymnasium knows `aime/Dream-v0` and `aime/DMC-v0` once this package is imported, or with its name before theirs:
`gymnasium.make("aime.agents:aime/Dream-v0", run=RUN)`.
"""

from __future__ import annotations

from importlib.util import find_spec


def register_environments() -> None:
    """Register the environments by the names of their modules; does nothing where gymnasium is not installed."""
    if find_spec("gymnasium") is None:
        return
    import gymnasium

    if "aime/Dream-v0" not in gymnasium.registry:
        dream = "aime.agents.dream_env"
        gymnasium.register("aime/Dream-v0", f"{dream}:DreamEnv", vector_entry_point=f"{dream}:DreamVectorEnv")
        gymnasium.register("aime/DMC-v0", "aime.io.collect.control_env:ControlEnv")


register_environments()
