"""Small gymnasium environments that paint their frames with numpy; importing this module registers them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}


class Painted(gymnasium.Env):
    """A number that actions in [0, 4] x [-1, 1] add to; the frame is that grey. From an odd start it ends at step 3."""

    metadata = METADATA
    observation_space: spaces.Space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space: spaces.Space = spaces.Box(np.array([0, -1], np.float32), np.array([4, 1], np.float32))
    internal_limit = 1000

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.total, self.steps = float(self.np_random.integers(20)), 0
        self.odd = self.total % 2 == 1
        return self._see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.total += self._amount(action)
        self.steps += 1
        return self._see(), self._amount(action), self.odd and self.steps == 3, self.steps == self.internal_limit, {}

    def render(self) -> Any:
        return np.full((48, 64, 3), int(self.total) % 256, np.uint8)

    def _amount(self, action: Any) -> float:
        assert self.action_space.contains(action), action
        return float(np.sum(action))

    def _see(self) -> Any:
        return np.array([self.total, self.steps], np.float64)


class Buttons(Painted):
    """The same, with buttons worth 3, 4 and 5, nothing to see but the frame, and an inner limit of 4 steps."""

    observation_space = spaces.Discrete(1)
    action_space = spaces.Discrete(3, start=3)
    internal_limit = 4

    def _amount(self, action: Any) -> float:
        assert self.action_space.contains(action), action
        return float(action)

    def _see(self) -> Any:
        return 0


class Unbounded(Painted):
    action_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)


class Blind(Painted):
    metadata: dict[str, Any] = METADATA | {"render_modes": []}

    def render(self) -> Any:
        return None


for kind in (Painted, Buttons, Unbounded, Blind):
    gymnasium.register(f"painted/{kind.__name__}-v0", entry_point=f"{__name__}:{kind.__name__}", max_episode_steps=2)
