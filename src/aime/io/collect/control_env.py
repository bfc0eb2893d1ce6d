"""The gymnasium environment `aime/DMC-v0`: DeepMind Control with frames as observations."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float, UInt8

from aime.data.action_scale import ActionScale, expect_clipped_actions
from aime.errors import AimeError, expect_choice
from aime.io.collect.distractors import DISTRACTORS, Distractor, make_distractor
from aime.io.collect.environment import (
    SUITE_STEPS,
    Arrival,
    ControlSuite,
    default_action_repeat,
    default_camera,
    split_name,
)
from aime.io.collect.recording import distract

Frame = UInt8[np.ndarray, "H W 3"]


class ControlEnv(gymnasium.Env):
    """One task: `gymnasium.make("aime.environments:aime/DMC-v0", domain="cartpole", task="swingup")`.

    Observations are frames `[H,W,3]`, 0 to 255, as recorded by `aime collect`. `info["state"]` is the simulator's
    state, positions and velocities. Rewards are summed over the action repeat.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012

    def __init__(
        self,
        domain: str,
        task: str,
        distractor: str = "none",
        action_repeat: int | None = None,
        image_size: int = 64,
        camera: int | None = None,
        length: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        """Load a task. Nothing is rendered before the first reset, so that the process can be forked until then.

        Args:
            domain: of dm_control, for instance `cartpole`.
            task: for instance `swingup`.
            distractor: "none", "static" or "dynamic": what replaces sky and floor.
            action_repeat: simulator steps per step, 1 or more; by default as in `aime collect`.
            image_size: height and width of a frame in pixels, 8 or more.
            camera: number of the camera; by default as in `aime collect`.
            length: steps after which an episode is truncated, 1 or more; by default 1000 simulator steps.
            render_mode: "rgb_array": `render` returns the last observed frame.

        Raises:
            AimeError: if dm_control is missing, has no such task or camera, or a setting is out of range.
        """
        repeat = default_action_repeat(domain) if action_repeat is None else action_repeat
        self._length = SUITE_STEPS // max(repeat, 1) if length is None else length
        expect_choice("distractor", distractor, tuple(DISTRACTORS))
        expect_choice("render_mode", render_mode, (None, "rgb_array"))
        least = {"action_repeat": (repeat, 1), "image_size": (image_size, 8), "length": (self._length, 1)}
        for name, (value, smallest) in least.items():
            if value < smallest:
                raise AimeError(f"{name} is {value}, expected {smallest} or more")
        camera = default_camera(domain) if camera is None else camera
        domain, task = split_name(f"dmc:{domain}_{task}")
        self._suite = ControlSuite(domain, task, repeat, image_size, camera, segment=distractor != "none", draw=False)
        self._kind, self._size, self.render_mode = distractor, image_size, render_mode
        self.observation_space = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.action_space = spaces.Box(-1.0, 1.0, (self._suite.action_width,), np.float32)
        self._distractor: Distractor | None = None
        self._elapsed = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """Start the episode of `seed`, or a new one.

        Raises:
            AimeError: if dm_control cannot render here.
        """
        super().reset(seed=seed)
        simulator, picture = (int(each) for each in self.np_random.integers(2**32, size=2))
        self._distractor = make_distractor(self._kind, np.random.default_rng(picture), self._size)
        self._elapsed = 0
        return self._show(self._suite.reset(simulator))

    def step(self, action: Float[np.ndarray, " A"]) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Apply an action `[A]`, clipped to [-1, 1], for the action repeat; values beyond ±10 are refused.

        Returns:
            Frame, reward, terminated, truncated, and the `state`.

        Raises:
            AimeError: if the action is not finite, is beyond ±10, or has another shape.
        """
        action, width = np.asarray(action, np.float32), self._suite.action_width
        if action.shape != (width,):
            raise AimeError(f"action has shape {list(action.shape)}, expected [{width}]: see what the policy computes")
        expect_clipped_actions(action, ActionScale.identity(width))
        self._elapsed += 1
        arrival = self._suite.step(np.clip(action, -1, 1))
        pixels, info = self._show(arrival)
        return pixels, arrival.reward, arrival.terminated, self._elapsed >= self._length, info

    def render(self) -> Frame | None:
        """The last observed frame, if `render_mode` is "rgb_array"."""
        return None if self.render_mode is None else self._pixels.copy()

    def _show(self, arrival: Arrival) -> tuple[Frame, dict[str, Any]]:
        self._pixels = distract(arrival, self._distractor, self._elapsed).pixels
        return self._pixels.copy(), {"state": arrival.state}
