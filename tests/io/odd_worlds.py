"""gymnasium environments that do what some do: `gymnasium.make("tests.io.odd_worlds:Odd-v0", oddity=...)`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

LARGEST = float(np.finfo(np.float32).max)
SPACES: dict[str, Any] = {
    "largest bounds": spaces.Box(-LARGEST, LARGEST, (1,), np.float32),
    "one largest bound": spaces.Box(np.array([-1.0, 0.0]), np.array([1.0, np.finfo(np.float64).max]), dtype=np.float64),
    "no bounds": spaces.Box(-np.inf, np.inf, (1,), np.float32),
    "integers": spaces.Box(0, 255, (2,), np.int32),
    "several": spaces.MultiDiscrete([3, 4]),
    "from five": spaces.Discrete(3, start=5),
    "float64": spaces.Box(np.array([[-2.0, 0.0], [1.0, -1.0]]), np.array([[5.0, 1.0], [2.0, 1.0]]), dtype=np.float64),
}
REWARDS: dict[str, Any] = {"nan reward": float("nan"), "array reward": np.array([1.0]), "no reward": None}
FRAMES: dict[str, Any] = {
    "another size": np.zeros((50, 70, 3), np.uint8),
    "RGBA": np.zeros((64, 96, 4), np.uint8),
    "no frame": None,
}


METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}


class Odd(gymnasium.Env):
    """A counter that is odd from its fourth step on."""

    metadata: dict[str, Any] = METADATA

    def __init__(self, oddity: str, render_mode: str | None = None) -> None:
        self.oddity, self.render_mode, self.time = oddity, render_mode, 0
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = SPACES.get(oddity, spaces.Box(-1, 1, (1,), np.float32))
        self.done: list[Any] = []
        self.buffer = np.zeros(3, np.float32)
        if oddity == "one buffer":
            self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)

    @property
    def odd(self) -> bool:
        return self.time >= 4

    def observed(self) -> np.ndarray:
        if self.oddity == "one buffer":
            self.buffer[0] = self.time
            return self.buffer
        last = {"large observation": 1e300, "nan observation": np.nan}.get(self.oddity, 0.0) if self.odd else 0.0
        return np.array([self.time, 0.0, last])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self.observed(), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.time += 1
        self.done.append(action)
        if self.oddity == "fails" and self.odd:
            raise RuntimeError("joint\nlimit")
        if self.oddity == "one buffer":
            earned, action[:] = float(action[0]), 9
            return self.observed(), earned, False, False, {}
        return self.observed(), REWARDS.get(self.oddity, 1.0), False, False, {}

    def render(self) -> Any:
        if self.oddity in FRAMES and self.odd:
            return FRAMES[self.oddity]
        return np.full((64, 96, 3), self.time * 10, np.uint8)


for oddity in (*SPACES, *REWARDS, *FRAMES, "large observation", "nan observation", "fails", "one buffer"):
    name = "".join(word.capitalize() for word in oddity.split())
    gymnasium.register(f"odd/{name}-v0", "tests.io.odd_worlds:Odd", kwargs={"oddity": oddity})
