"""The interface of environments to record, and DeepMind Control.

`dm_control` is imported when an environment is built, because it needs a GL library.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt8

from aime.data.mask_names import note_mask_names
from aime.data.shards import Attribute
from aime.data.state_names import note_state_names
from aime.errors import AimeError, type_and_text
from aime.io.collect.controllers import CONTROLLERS
from aime.io.collect.segmentation import Segmentation

RENDERER_FLAGS = {"shadow": False, "reflection": False}
"""Shadows and reflections take three quarters of the time of software rendering of a 64x64 frame."""

ACTION_REPEATS = {"cartpole": 4, "reacher": 4, "cheetah": 4, "ball_in_cup": 4, "finger": 2, "walker": 2}
"""PlaNet's table (Hafner et al. 2019, arXiv 1811.04551), except cartpole: 4 here, 8 there."""

OTHER_ACTION_REPEAT = 2

SUITE_STEPS = 1000
"""Simulator steps of an episode of the suite."""

CAMERAS = {"quadruped": 2}
"""Cameras other than 0: the quadruped's camera 0 does not follow it."""

RENDERING_REMEDY = (
    "run `pip install 'aime[dmc]'` and `apt-get install libegl1 libgl1-mesa-dri`, or choose another GL library with "
    "MUJOCO_GL=egl|osmesa"
)


class Arrival(NamedTuple):
    """What an environment returns on arrival at a frame."""

    pixels: UInt8[np.ndarray, "H W 3"]
    reward: float
    """Sum over the action repeat; NaN after a reset."""
    terminated: bool
    state: Float32[np.ndarray, " S"]
    """S is 0 if there is no state."""
    background: Float32[np.ndarray, "H W"] | None
    """Share of each pixel in [0, 1] that sky and floor cover, if requested."""
    truncated: bool = False
    """Whether the episode stops without termination."""
    taken: Float32[np.ndarray, " A"] | None = None
    """The action that was taken, if it differs from the requested one."""
    mask: UInt8[np.ndarray, "H W"] | None = None
    """Instance id of each pixel, 0 for the background, if requested."""


class Environment(Protocol):
    """An environment that can be recorded."""

    action_width: int
    step_seconds: float
    """Simulated time from one frame to the next, in seconds."""

    def reset(self, seed: int) -> Arrival:
        """Start an episode that depends on `seed` (0 to 2³²-1) only."""

    def step(self, action: Float32[np.ndarray, " A"]) -> Arrival:
        """Apply an action `[A]` in [-1, 1] for the action repeat, and render."""

    def control(self) -> Float64[np.ndarray, " A"]:
        """The action of the task's scripted controller, `[A]` in [-1, 1]."""

    def notes(self) -> dict[str, Attribute]:
        """Attributes of shards: fields of the state, units of actions, names of mask ids."""


def default_action_repeat(domain: str) -> int:
    """Simulator steps per recorded step of a dm_control domain, by the table `ACTION_REPEATS`."""
    return ACTION_REPEATS.get(domain, OTHER_ACTION_REPEAT)


def default_camera(domain: str) -> int:
    """The usual camera of a dm_control domain."""
    return CAMERAS.get(domain, 0)


def split_name(name: str) -> tuple[str, str]:
    """Domain and task of a name such as `dmc:ball_in_cup_catch`.

    Raises:
        AimeError: if the name has another form, or dm_control has no such task, or is not installed.
    """
    scheme, _, rest = name.partition(":")
    if scheme != "dmc" or not rest:
        raise AimeError(
            f"environment '{name}': expected dmc:DOMAIN_TASK or gym:ENV_ID; write for instance dmc:cartpole_swingup"
        )
    tasks: dict[str, tuple[str, str]] = {f"{domain}_{task}": (domain, task) for domain, task in _suite().ALL_TASKS}
    if rest not in tasks:
        near = [f"dmc:{known}" for known in sorted(tasks) if known.startswith(rest.split("_")[0])]
        known = ", ".join(near or sorted(f"dmc:{known}" for known in tasks))
        raise AimeError(f"environment '{name}': dm_control has no such task; choose one of {known}")
    return tasks[rest]


def rendering_problem(timeout: float = 60.0) -> str | None:
    """Why dm_control cannot record here, in one line, or None if it can.

    One frame is rendered in a separate process, because a broken GL library may crash or hang.

    Args:
        timeout: seconds to wait for the frame.
    """
    program = (
        "from aime.io.collect.environment import ControlSuite\n"
        "from aime.errors import AimeError\n"
        "try: ControlSuite('cartpole', 'swingup', action_repeat=1, image_size=16, camera=0)\n"
        "except AimeError as error: raise SystemExit(str(error))"
    )
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=timeout, env=paths
        )
    except subprocess.TimeoutExpired:
        return f"dm_control rendered nothing within {timeout:g} s; {RENDERING_REMEDY}"
    if done.returncode == 0:
        return None
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return last or f"dm_control crashed while rendering (status {done.returncode}); {RENDERING_REMEDY}"


def _suite() -> Any:
    """dm_control's suite. It chooses a GL library when it is imported."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    _load_triton_first()
    try:
        if int(version("mujoco").split(".")[0]) >= 4:
            raise AimeError(f"mujoco {version('mujoco')} breaks dm_control, expected <4; run `pip install 'mujoco<4'`")
        from dm_control import suite
    except (PackageNotFoundError, ModuleNotFoundError) as error:
        raise AimeError(f"dm_control cannot be imported ({type_and_text(error)}); {RENDERING_REMEDY}") from error
    except AimeError:
        raise
    except Exception as error:  # a missing GL library shows as an AttributeError, a missing display as an ImportError
        raise _no_rendering(error) from error
    return suite


def _load_triton_first() -> None:
    """Load torch's GPU compiler before the GL library, if both may be needed.

    Mesa's software renderer and triton both contain LLVM. If triton is loaded second, the first custom operator of
    torch causes a segmentation fault; in the other order both work (Mesa 22, triton 3.7).
    """
    if "torch" in sys.modules:
        with contextlib.suppress(ImportError):
            importlib.import_module("triton")


_rendering_process: int | None = None
"""Id of the process that rendered first. A fork of it cannot render."""


def _refuse_rendering_after_fork() -> None:
    """Raise an error in a forked process, where rendering would hang."""
    global _rendering_process
    if _rendering_process not in (None, os.getpid()):
        raise AimeError(
            "dm_control cannot render in a process that was forked from one that has rendered; expected a new "
            "process: start it with 'spawn' (gymnasium: vector_kwargs={'context': 'spawn'}), or before anything renders"
        )
    _rendering_process = os.getpid()


def _no_rendering(error: BaseException) -> AimeError:
    symptom = f"MUJOCO_GL={os.environ.get('MUJOCO_GL', '')}: {type_and_text(error)}"
    return AimeError(f"dm_control cannot render ({symptom}); {RENDERING_REMEDY}")


class ControlSuite:
    """A task of the DeepMind Control Suite, rendered by one camera, without its time limit.

    Reference: Tassa et al. 2018, arXiv 1801.00690.
    """

    def __init__(
        self,
        domain: str,
        task: str,
        action_repeat: int,
        image_size: int,
        camera: int,
        segment: bool = False,
        draw: bool = True,
        masks: bool = False,
    ) -> None:
        """Load the task and render one frame, so that errors occur here.

        Args:
            domain: for instance `cartpole`.
            task: for instance `swingup`.
            action_repeat: simulator steps per recorded step, at least 1.
            image_size: height and width of a frame in pixels.
            camera: number of the camera.
            segment: also compute the share of each pixel that sky and floor cover.
            draw: render that frame; otherwise the process can be forked until the first reset.
            masks: also compute instance ids; see `aime.io.collect.segmentation`.

        Raises:
            AimeError: if dm_control is missing or cannot render, or the task has no such camera.
        """
        suite = _suite()
        self._environment = suite.load(domain, task, task_kwargs={"time_limit": float("inf"), "random": 0})
        self._physics: Any = self._environment.physics
        cameras = int(self._physics.model.ncam)
        if not 0 <= camera < cameras:
            raise AimeError(f"camera {camera}: {domain}_{task} has {cameras}; choose one from 0 to {cameras - 1}")
        specification = self._environment.action_spec()
        self._low, self._high = specification.minimum, specification.maximum
        self.action_width = int(specification.shape[0])
        self.step_seconds = action_repeat * float(self._environment.control_timestep())
        self._controller = CONTROLLERS.get(f"{domain}_{task}")
        self._action_repeat, self._image_size, self._camera = action_repeat, image_size, camera
        self._segmentation = Segmentation(self._physics.model) if segment or masks else None
        self._segment, self._masks = segment, masks
        self._cameras: dict[int, Any] = {}
        if draw:
            self._environment.reset()
            self._render()

    def reset(self, seed: int) -> Arrival:
        """Start the episode that `seed` (0 to 2³²-1) determines."""
        self._environment.task.random.seed(seed)
        self._environment.reset()
        return self._arrive(reward=float("nan"), terminated=False)

    def step(self, action: Float32[np.ndarray, " A"]) -> Arrival:
        """Apply an action `[A]` in [-1, 1], scaled to the actuators' range, for the action repeat."""
        scaled = self._low + (np.asarray(action, np.float64) + 1.0) / 2.0 * (self._high - self._low)
        reward, terminated = 0.0, False
        for _ in range(self._action_repeat):
            time_step = self._environment.step(scaled)
            reward += float(time_step.reward)
            terminated = bool(time_step.last())
            if terminated:
                break
        return self._arrive(reward, terminated)

    def control(self) -> Float64[np.ndarray, " A"]:
        """See `Environment.control`."""
        assert self._controller is not None, "only tasks with a controller have such policies"
        return self._controller(self._physics)

    def notes(self) -> dict[str, Attribute]:
        """Fields of the state and names of mask ids; the suite's actions are in [-1, 1]."""
        state = {"position": self._physics.data.qpos.size, "velocity": self._physics.data.qvel.size}
        instances = self._segmentation.names if self._segmentation is not None and self._masks else {}
        return note_state_names(state) | note_mask_names(instances)

    def _arrive(self, reward: float, terminated: bool) -> Arrival:
        state = np.concatenate([self._physics.data.qpos, self._physics.data.qvel]).astype(np.float32)
        background = mask = None
        if self._segmentation is not None:
            background = self._segmentation.background(self._draw_objects, self._image_size) if self._segment else None
            mask = self._segmentation.instances(self._draw_objects, self._image_size) if self._masks else None
        return Arrival(self._render(), reward, terminated, state, background, mask=mask)

    def _render(self) -> UInt8[np.ndarray, "H W 3"]:
        return self._draw(self._image_size, render_flag_overrides=dict(RENDERER_FLAGS))

    def _draw_objects(self, size: int) -> Int32[np.ndarray, "H W 2"]:
        return self._draw(size, segmentation=True)

    def _draw(self, size: int, **options: Any) -> np.ndarray:
        _refuse_rendering_after_fork()
        try:
            drawn: np.ndarray = self._camera_of(size).render(**options)
        except Exception as error:
            raise _no_rendering(error) from error
        return drawn.copy()

    def _camera_of(self, size: int) -> Any:
        # `physics.render` creates a camera for each frame, which takes three times as long as rendering
        if size not in self._cameras:
            engine = importlib.import_module("dm_control.mujoco.engine")
            self._cameras[size] = engine.Camera(self._physics, size, size, camera_id=self._camera)
        return self._cameras[size]
