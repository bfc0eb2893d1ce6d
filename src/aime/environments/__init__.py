"""Environments of gymnasium: the dream of a trained world model, and DeepMind Control as it was recorded.

gymnasium knows `aime/Dream-v0` and `aime/DMC-v0` once this package is imported, or with its name before theirs:
`gymnasium.make("aime.environments:aime/Dream-v0", run=RUN)`.
"""

from __future__ import annotations

from importlib.util import find_spec


def register_environments() -> None:
    """Register the environments by the names of their modules; does nothing where gymnasium is not installed."""
    if find_spec("gymnasium") is None:
        return
    import gymnasium

    if "aime/Dream-v0" not in gymnasium.registry:
        dream = "aime.environments.dream_env"
        gymnasium.register("aime/Dream-v0", f"{dream}:DreamEnv", vector_entry_point=f"{dream}:DreamVectorEnv")
        gymnasium.register("aime/DMC-v0", "aime.io.collect.control_env:ControlEnv")


register_environments()
