"""What AIME's gymnasium environments have in common: names, metadata, and checks of settings."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from aime.errors import AimeError

METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 25}


def register_environments() -> None:
    """Register the environments by the names of their modules; does nothing where gymnasium is not installed.

    gymnasium knows them after `import aime.agents`, or with that module before the name, as in
    `gymnasium.make("aime.agents:aime/Dream-v0", run=RUN)`.
    """
    if find_spec("gymnasium") is None:
        return
    import gymnasium

    if "aime/Dream-v0" not in gymnasium.registry:
        dream = "aime.agents.dream_env"
        gymnasium.register("aime/Dream-v0", f"{dream}:DreamEnv", vector_entry_point=f"{dream}:DreamVectorEnv")
        gymnasium.register("aime/DMC-v0", "aime.agents.control_env:ControlEnv")


def expect_choice(name: str, value: str | None, choices: tuple[str | None, ...]) -> None:
    """Refuse a setting that is none of the choices.

    Raises:
        AimeError: if so.
    """
    if value not in choices:
        raise AimeError(f"{name} is {value!r}, expected {' or '.join(map(repr, choices))}")


def expect_at_least(**settings: tuple[int, int]) -> None:
    """Refuse the first setting, a pair of a value and its least, that is smaller.

    Raises:
        AimeError: if so.
    """
    for name, (value, least) in settings.items():
        if value < least:
            raise AimeError(f"{name} is {value}, expected {least} or more")
