"""Recording of gymnasium environments: `aime collect gym:ENV_ID`.

gymnasium is imported on demand, because it is an optional dependency.
"""

from __future__ import annotations

import importlib
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from PIL import Image

from aime.data.action_scale import ActionScale
from aime.data.shards import Attribute
from aime.data.state_names import note_state_names
from aime.errors import AimeError, type_and_text
from aime.io.collect.environment import Arrival
from aime.io.collect.policies import SKILLED, Policy

LARGEST_BOUND = 1e30
"""Larger bounds of actions count as infinite, because some programs use the largest number of a type."""

USUAL_RATE = 30.0
"""Frames per second of an environment without a rate."""


@dataclass(frozen=True)
class GymRecording:
    """Settings that determine the episodes of a gymnasium environment.

    Attributes:
        environment: argument of `gymnasium.make`: `CartPole-v1`, or `MODULE:ENV_ID`, where MODULE registers ENV_ID.
        length: maximum number of frames per episode.
        policy: random or smooth.
        seed: 0 or more.
        action_repeat: environment steps per recorded step.
        image_size: height and width of a frame in pixels.
    """

    environment: str
    length: int
    policy: Policy
    seed: int
    action_repeat: int
    image_size: int

    distractor: ClassVar[str] = "none"

    def __post_init__(self) -> None:
        if self.policy in SKILLED:
            raise AimeError(f"policy {self.policy}: gym:{self.environment} has no controller; choose random or smooth")

    @property
    def name(self) -> str:
        """Name of the environment, valid as a directory name."""
        return self.environment.rpartition(":")[2].replace("/", "_")

    @property
    def summary(self) -> str:
        """The settings in a line."""
        return (
            f"{self.name}: {self.image_size}x{self.image_size}, action repeat {self.action_repeat}, policy "
            f"{self.policy}, seed {self.seed}"
        )

    def attributes(self) -> dict[str, Attribute]:
        """Attributes of every shard, except versions."""
        return vars(self) | {"environment": f"gym:{self.environment}"}

    def build(self) -> GymWorld:
        """Create the environment.

        Raises:
            AimeError: if the environment is unknown, cannot be created or rendered, or has actions of another kind.
        """
        return GymWorld(self.environment, self.action_repeat, self.image_size)


def check_known(environment: str) -> None:
    """Check that gymnasium knows an environment, without creating it.

    Raises:
        AimeError: if gymnasium is not installed, or knows no such environment.
    """
    gymnasium = _gymnasium()
    module, _, name = environment.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        gymnasium.spec(name)
    except (ImportError, gymnasium.error.Error) as error:
        raise AimeError(
            f"gym:{environment}: gymnasium finds no such environment ({type_and_text(error)}); expected gym:ENV_ID, or "
            "gym:MODULE:ENV_ID, where MODULE registers ENV_ID"
        ) from error


class GymWorld:
    """A gymnasium environment without its time limit, with actions in [-1, 1] and frames.

    Box actions are scaled from [-1, 1] to their range. Of n numbers for n discrete actions the largest is taken; it is
    recorded as 1 and the others as -1.

    Attributes:
        action_width: A.
        step_seconds: time between frames, from the environment's frame rate, or 30 Hz.
    """

    def __init__(self, environment: str, action_repeat: int, image_size: int) -> None:
        """Create the environment and render one frame, so that errors occur here.

        Args:
            environment: argument of `gymnasium.make`.
            action_repeat: environment steps per recorded step, at least 1.
            image_size: height and width of a frame in pixels.

        Raises:
            AimeError: if it cannot be created or rendered, or its actions are neither a bounded box nor discrete.
        """
        gymnasium = _gymnasium()
        self._name, self._action_repeat, self._size = f"gym:{environment}", action_repeat, image_size
        try:
            self._environment: Any = gymnasium.make(
                environment, render_mode="rgb_array", max_episode_steps=-1, disable_env_checker=True
            )
            self._environment.reset(seed=0)
            frame = self._environment.render()
        except Exception as error:  # an environment may fail in any way
            raise AimeError(
                f"{self._name}: cannot be created and rendered ({type_and_text(error)}); expected an environment "
                "that renders rgb_array: install what it needs, or choose another"
            ) from error
        self._frame_shape = self._checked(frame).shape
        space = self._environment.action_space
        self._discrete = isinstance(space, gymnasium.spaces.Discrete)
        self._check_actions(space, gymnasium.spaces)
        self._space = space
        self.step_seconds = action_repeat / float(self._environment.metadata.get("render_fps") or USUAL_RATE)
        self.action_width = int(space.n) if self._discrete else int(np.prod(space.shape))
        seen = self._environment.observation_space
        is_vector = isinstance(seen, gymnasium.spaces.Box) and len(seen.shape) == 1
        self._state_width = int(seen.shape[0]) if is_vector else 0

    def reset(self, seed: int) -> Arrival:
        """Start the episode that `seed` (0 to 2³²-1) determines."""
        observation, _ = self._call("reset", seed=seed)
        return self._arrive(observation, float("nan"), False)

    def step(self, action: Float32[np.ndarray, " A"]) -> Arrival:
        """Apply an action `[A]` in [-1, 1] for the action repeat, and render.

        Raises:
            AimeError: if the environment fails, or returns a reward, observation or frame that cannot be recorded.
        """
        reward, terminated, truncated = 0.0, False, False
        done, taken = self._done(action)
        for _ in range(self._action_repeat):
            observation, earned, terminated, truncated, _ = self._call("step", copy(done))
            reward += self._reward(earned)
            if terminated or truncated:
                break
        arrival = self._arrive(observation, reward, bool(terminated))
        return arrival._replace(truncated=bool(truncated), taken=taken)

    def control(self) -> Float64[np.ndarray, " A"]:
        """Never called: there are no scripted controllers."""
        raise AssertionError("only tasks with a controller have such policies")

    def notes(self) -> dict[str, Attribute]:
        """Attributes of shards: range of box actions, width of the state."""
        known = note_state_names({"observation": self._state_width})
        if self._discrete:
            return known
        low, high = (tuple(map(float, bound.ravel())) for bound in (self._space.low, self._space.high))
        return ActionScale(low, high).attributes() | known

    def _done(self, action: Float32[np.ndarray, " A"]) -> tuple[Any, Float32[np.ndarray, " A"]]:
        """The environment's action, and its numbers in [-1, 1]."""
        space = self._space
        if self._discrete:
            chosen = int(np.argmax(action))
            taken = np.where(np.arange(self.action_width) == chosen, 1.0, -1.0).astype(np.float32)
            return space.start + chosen, taken
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        scaled = low + (action.reshape(space.shape).astype(np.float64) + 1.0) / 2.0 * (high - low)
        return scaled.astype(space.dtype), action

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self._environment, name)(*arguments, **options)
        except Exception as error:  # an environment may fail in any way
            raise AimeError(
                f"{self._name}: its {name} fails ({type_and_text(error)}); expected it to run: fix the environment"
            ) from error

    def _reward(self, earned: Any) -> float:
        """A number, or an array of one."""
        try:
            reward = float(np.asarray(earned, np.float64).item())
        except (TypeError, ValueError):
            reward = float("nan")
        if not np.isfinite(reward):
            raise AimeError(f"{self._name}: a reward is {earned!r}; expected a finite number: fix the environment")
        return reward

    def _arrive(self, observation: Any, reward: float, terminated: bool) -> Arrival:
        state = self._state(observation) if self._state_width else np.zeros(0, np.float32)
        return Arrival(self._draw(), reward, terminated, state, None)

    def _state(self, observation: Any) -> Float32[np.ndarray, " S"]:
        with np.errstate(over="ignore"):
            state = np.array(observation, np.float32)  # some environments reuse their arrays
        if not np.isfinite(state).all():
            place = int(np.flatnonzero(~np.isfinite(state))[0])
            raise AimeError(
                f"{self._name}: observation[{place}] is {np.asarray(observation)[place]}; expected numbers that fit "
                "float32: fix the environment"
            )
        return state

    def _draw(self) -> UInt8[np.ndarray, "H W 3"]:
        frame = self._checked(self._call("render"))
        if frame.shape != self._frame_shape:
            found, first = list(frame.shape[:2]), list(self._frame_shape[:2])
            raise AimeError(f"{self._name}: a frame is {found} after {first}; expected one size: fix the environment")
        # pillow's bilinear filter widens with the reduction, which avoids aliasing of thin objects
        size = self._size, self._size
        return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))

    def _checked(self, frame: Any) -> UInt8[np.ndarray, "H W 3"]:
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            kind = f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise AimeError(f"{self._name}: renders {kind}, expected uint8 frames [H, W, 3]; choose another")
        return frame

    def _check_actions(self, space: Any, spaces: Any) -> None:
        # the largest float32 as a bound means no bound
        bounded = (
            isinstance(space, spaces.Box)
            and np.issubdtype(space.dtype, np.floating)
            and bool((np.abs([space.low, space.high]) <= LARGEST_BOUND).all())
        )
        if not self._discrete and not bounded:
            raise AimeError(
                f"{self._name}: its actions are {space}, expected a Box of floats with bounds, or Discrete; wrap it so"
            )


def _gymnasium() -> Any:
    try:
        return importlib.import_module("gymnasium")
    except ImportError as error:
        raise AimeError(
            f"gymnasium cannot be imported ({type_and_text(error)}); run `pip install 'aime[gym]'`"
        ) from error
