"""The names under which gymnasium finds AIME's environments.

gymnasium 1 knows an environment once the module that registers it is imported: `import aime.agents`, or the module's
name before the environment's, as in `gymnasium.make("aime.agents:aime/Dream-v0", run=RUN)`.
"""

from __future__ import annotations

from importlib.util import find_spec

DREAM = "aime/Dream-v0"
CONTROL = "aime/DMC-v0"


def register_environments() -> None:
    """Register the environments, by the names of their modules only; does nothing where gymnasium is not installed."""
    if find_spec("gymnasium") is None:
        return
    import gymnasium

    if DREAM in gymnasium.registry:
        return
    dream = "aime.agents.dream_env"
    gymnasium.register(DREAM, entry_point=f"{dream}:DreamEnv", vector_entry_point=f"{dream}:DreamVectorEnv")
    gymnasium.register(CONTROL, entry_point="aime.agents.control_env:ControlEnv")
