"""Recording of one episode, as a function of settings and episode number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float32, Float64

from aime.data.episodes import Episode
from aime.data.shards import Attribute
from aime.errors import AimeError
from aime.io.collect.controllers import CONTROLLERS
from aime.io.collect.distractors import Distractor, DistractorKind, blend, make_distractor
from aime.io.collect.environment import (
    RENDERER_FLAGS,
    SUITE_STEPS,
    Arrival,
    ControlSuite,
    Environment,
    default_action_repeat,
    default_camera,
    split_name,
)
from aime.io.collect.policies import SKILLED, Policy, start_policy


class Recordable(Protocol):
    """Settings that determine the episodes of one environment."""

    @property
    def name(self) -> str:
        """Name of the environment, valid as a directory name."""

    @property
    def summary(self) -> str:
        """The settings in a line."""

    @property
    def length(self) -> int:
        """Maximum number of frames per episode."""

    @property
    def policy(self) -> Policy:
        """The policy."""

    @property
    def seed(self) -> int:
        """0 or more."""

    @property
    def distractor(self) -> str:
        """A name in `aime.io.collect.distractors.DISTRACTORS`."""

    @property
    def image_size(self) -> int:
        """Height and width of a frame in pixels."""

    def attributes(self) -> dict[str, Attribute]:
        """Attributes of every shard, except versions."""

    def build(self) -> Environment:
        """Create the environment, in the recording process."""


@dataclass(frozen=True)
class Recording:
    """Recording of a task of DeepMind Control.

    Attributes:
        domain: of dm_control, for instance `cartpole`.
        task: for instance `swingup`.
        length: maximum number of frames per episode.
        policy: see `aime.io.collect.policies`.
        seed: 0 or more.
        distractor: a name in `aime.io.collect.distractors.DISTRACTORS`.
        action_repeat: simulator steps per recorded step.
        image_size: height and width of a frame in pixels.
        camera: number of the camera.
        masks: also record instance ids; this changes nothing else.
    """

    domain: str
    task: str
    length: int
    policy: Policy
    seed: int
    distractor: str
    action_repeat: int
    image_size: int
    camera: int
    masks: bool = False

    @property
    def name(self) -> str:
        """Such as `cartpole_swingup`."""
        return f"{self.domain}_{self.task}"

    @property
    def suite_steps(self) -> int:
        """Recorded steps of an episode of the suite's own length."""
        return SUITE_STEPS // self.action_repeat

    @property
    def summary(self) -> str:
        """The settings in a line."""
        flags = ", ".join(f"{name} {'on' if value else 'off'}" for name, value in RENDERER_FLAGS.items())
        return (
            f"{self.name}: {self.image_size}x{self.image_size}, camera {self.camera}, action repeat "
            f"{self.action_repeat}, {flags}, policy {self.policy}, distractor {self.distractor}, seed {self.seed}"
        )

    def __post_init__(self) -> None:
        if self.policy in SKILLED and self.name not in CONTROLLERS:
            raise AimeError(
                f"policy {self.policy}: {self.name} has no controller; choose random or smooth, or one of "
                f"{', '.join(f'dmc:{name}' for name in CONTROLLERS)}"
            )

    def attributes(self) -> dict[str, Attribute]:
        """Attributes of every shard, except versions.

        `masks` is not among them, so that a recording without masks can be continued with masks.
        """
        settings = {name: value for name, value in vars(self).items() if name != "masks"}
        return {"environment": f"dmc:{self.name}", **settings, **RENDERER_FLAGS}

    def build(self) -> Environment:
        """Create the environment.

        Raises:
            AimeError: if dm_control is missing, cannot render, or has no such camera.
        """
        return ControlSuite(
            self.domain,
            self.task,
            self.action_repeat,
            self.image_size,
            self.camera,
            segment=self.distractor != "none",
            masks=self.masks,
        )


def recording_of(
    environment: str, noted: Mapping[str, Attribute], image_size: int, distractor: DistractorKind | None = None
) -> Recording:
    """The settings of a recorded data set, or the defaults if it is from another environment.

    Args:
        environment: dmc:DOMAIN_TASK.
        noted: attributes of the data set.
        image_size: height and width of a frame in pixels.
        distractor: replaces that of the data set.

    Raises:
        AimeError: if there is no such environment.
    """
    if environment.startswith("gym:"):
        raise AimeError(
            f"environment '{environment}': agents are evaluated in DeepMind Control only, and gymnasium environments "
            "can only be recorded; expected dmc:DOMAIN_TASK, such as dmc:cartpole_swingup"
        )
    domain, task = split_name(environment)
    like = noted if noted.get("environment") == environment else {}
    return Recording(
        domain=domain,
        task=task,
        length=2,
        policy="random",
        seed=0,
        distractor=distractor or str(like.get("distractor", "none")),
        action_repeat=int(like.get("action_repeat", default_action_repeat(domain))),
        image_size=image_size,
        camera=int(like.get("camera", default_camera(domain))),
    )


def record_episode(
    environment: Environment, recording: Recordable, number: int, tick: Callable[[], None] = lambda: None
) -> Episode:
    """Record episode `number`, which depends on the recording and the number only.

    x_0 comes from the reset; a_t is taken after x_t; the reward and termination at t describe the arrival at x_t. So
    the first reward and the last action are NaN.

    Args:
        environment: from `recording.build()`.
        recording: the settings.
        number: 0 or more.
        tick: called before every frame except the first; it may raise an exception to stop.
    """
    reset_seed, policy_generator, distractor_generator = _seeds(recording.seed, number)
    act = start_policy(recording.policy, policy_generator, recording.length, environment)
    distractor = make_distractor(recording.distractor, distractor_generator, recording.image_size)
    arrivals = [distract(environment.reset(reset_seed), distractor, 0)]
    actions: list[np.ndarray] = []
    for step in range(1, recording.length):
        tick()
        asked = act(step - 1)
        arrivals.append(distract(environment.step(asked), distractor, step))
        actions.append(asked if arrivals[-1].taken is None else arrivals[-1].taken)
        if arrivals[-1].terminated or arrivals[-1].truncated:
            break
    return episode_of(arrivals, actions)


def _seeds(seed: int, number: int) -> tuple[int, np.random.Generator, np.random.Generator]:
    """Independent random generators for simulator, policy and distractor."""
    simulator, policy, distractor = np.random.SeedSequence(seed, spawn_key=(number,)).spawn(3)
    return int(simulator.generate_state(1)[0]), np.random.default_rng(policy), np.random.default_rng(distractor)


def distract(arrival: Arrival, distractor: Distractor | None, step: int) -> Arrival:
    """An arrival whose background is replaced with the distractor."""
    if distractor is None or arrival.background is None:
        return arrival
    return arrival._replace(pixels=blend(arrival.pixels, distractor.frame(step), arrival.background), background=None)


class Distracted:
    """An environment with a distractor, for evaluation."""

    def __init__(self, recording: Recordable) -> None:
        """Build it.

        Raises:
            AimeError: if the environment cannot be built.
        """
        self._recording, self._within = recording, recording.build()
        self.action_width, self.step_seconds = self._within.action_width, self._within.step_seconds
        self._distractor: Distractor | None = None
        self._steps = 0

    def reset(self, seed: int) -> Arrival:
        """Start the episode of `seed`, including its distractor."""
        generator = np.random.default_rng([seed, 1])
        self._distractor = make_distractor(self._recording.distractor, generator, self._recording.image_size)
        self._steps = 0
        return distract(self._within.reset(seed), self._distractor, 0)

    def step(self, action: Float32[np.ndarray, " A"]) -> Arrival:
        """See `Environment.step`."""
        self._steps += 1
        return distract(self._within.step(action), self._distractor, self._steps)

    def control(self) -> Float64[np.ndarray, " A"]:
        """See `Environment.control`."""
        return self._within.control()

    def notes(self) -> dict[str, Attribute]:
        """See `Environment.notes`."""
        return self._within.notes()


class Recorded(Distracted):
    """The same, which keeps the episode that is played in it."""

    def reset(self, seed: int) -> Arrival:
        """See `Distracted.reset`."""
        self._arrivals, self._actions = [super().reset(seed)], list[np.ndarray]()
        return self._arrivals[0]

    def step(self, action: Float32[np.ndarray, " A"]) -> Arrival:
        """See `Environment.step`."""
        arrival = super().step(action)
        self._actions.append(action if arrival.taken is None else arrival.taken)
        self._arrivals.append(arrival)
        return arrival

    @property
    def episode(self) -> Episode:
        """What was played since the last reset: one step or more."""
        return episode_of(self._arrivals, self._actions)


def episode_of(arrivals: list[Arrival], actions: list[np.ndarray]) -> Episode:
    """The episode of L ≥ 2 arrivals and the L - 1 actions `[A]` between them."""
    never_taken = np.full_like(actions[-1], np.nan)
    masks = [arrival.mask for arrival in arrivals if arrival.mask is not None]
    return Episode(
        pixels=np.stack([arrival.pixels for arrival in arrivals]),
        action=np.stack([*actions, never_taken]),
        reward=np.array([arrival.reward for arrival in arrivals], np.float32),
        terminated=np.array([arrival.terminated for arrival in arrivals]),
        state=np.stack([arrival.state for arrival in arrivals]) if arrivals[0].state.size else None,
        mask=np.stack(masks) if masks else None,
    )
