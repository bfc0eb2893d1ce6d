"""A trained world model as a gymnasium environment, one dream or many at once: `aime/Dream-v0`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float, Float32, Float64, UInt8

from aime.agents.dream_starts import open_starts, watch_starts
from aime.agents.dream_worlds import DreamSnapshot, DreamWorlds, Rules
from aime.data.action_scale import ActionScale
from aime.errors import AimeError
from aime.inference.loading import load_run
from aime.primitives.hardware import Device
from aime.world_model.config import ModelConfig
from aime.world_model.saved import RunInfo, read_run
from aime.world_model.values import expect_clipped_actions

Observations = Literal["latents", "frames"]

METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 25}

Observation = Float32[np.ndarray, "*N features"] | UInt8[np.ndarray, "*N H W 3"]


class DreamVectorEnv(VectorEnv):
    """N dreams, stepped in one call: `gymnasium.make_vec("aime.agents:aime/Dream-v0", num_envs=N, run=RUN)`.

    An episode starts at a frame of a real clip and goes on as the model imagines it. Observations are the model's
    belief and latent [h_{t-1}, z_t], or frames; the reward is the mean that the reward head predicts. An episode is a
    function of its seed and its actions; no generator outside is touched.

    A dream that has ended starts again at the next step, which ignores its action and gives the reward 0: gymnasium's
    default, `AutoresetMode.NEXT_STEP`. In `AutoresetMode.SAME_STEP` it starts again at once, and the episode's last
    observation is in `info["final_obs"]`.

    With a seed s, dream i runs the episodes that `DreamEnv` runs from seed s + i, to what float32 rounds.
    """

    metadata = METADATA | {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(
        self,
        num_envs: int,
        run: str | Path,
        *,
        data: str | Path | None = None,
        observations: Observations = "latents",
        horizon: int = 50,
        context: int = 5,
        starts: int = 512,
        deterministic: bool = False,
        terminate: bool = True,
        original_units: bool = False,
        device: Device = "auto",
        render_mode: str | None = None,
        autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    ) -> None:
        """Load a run and watch the clips that dreams begin in.

        Args:
            num_envs: N, 1 or more.
            run: a run directory, or "bundled:NAME", whose model has reward and continuation heads.
            data: a data set to begin in; by default the part of the run's own data that it trained on.
            observations: "latents" for [h_{t-1}, z_t] as float32, "frames" for `[H,W,3]` uint8.
            horizon: imagined steps after which an episode is truncated, 1 or more.
            context: real frames that a dream has seen at least when it begins, 1 or more.
            starts: about how many frames of the data dreams begin at, 1 or more; all are watched now.
            deterministic: take the likeliest next latent in place of a sample.
            terminate: end an episode where the continuation head gives less than 0.5 for its going on.
            original_units: take actions in the units of the run's training data, such as radians, and not in [-1, 1].
            device: where the model runs.
            render_mode: "rgb_array" lets `render` give the frames, beside latents too.
            autoreset_mode: when a dream that has ended starts again, at the next step or in the same one.

        Raises:
            AimeError: if a setting is out of its range, `run` is no run, its model has no reward head or one that never
                saw a reward, or the data does not fit it or has no rewards.
        """
        if autoreset_mode is AutoresetMode.DISABLED:
            raise AimeError(
                "autoreset_mode is DISABLED, expected NEXT_STEP or SAME_STEP: dreams start again by themselves"
            )
        _check(observations, render_mode, num_envs=num_envs, horizon=horizon, context=context, starts=starts)
        dataset = open_starts(read_run(run), data, context)
        info, model = load_run(run, device)
        model.dynamics.expect_rewards()
        visible = observations == "frames" or render_mode is not None
        rules = Rules(horizon, terminate, deterministic)
        begin = watch_starts(model, dataset, context, starts)
        self._worlds = DreamWorlds(model.dynamics, begin, rules, num_envs, model if visible else None)
        self.num_envs, self.render_mode, self._observations = num_envs, render_mode, observations
        self.single_observation_space = _observation_space(info.model, observations)
        self._scale = _scale(info) if original_units else ActionScale.identity(info.model.action_width)
        low, high = np.array(self._scale.low, np.float32), np.array(self._scale.high, np.float32)
        self.single_action_space = spaces.Box(low, high, dtype=np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = METADATA | {"autoreset_mode": autoreset_mode}
        self._seeded = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode in every dream: those that `seed` determines, or else those that follow on the last."""
        super().reset(seed=seed)
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**62))
        if seed is not None:
            self._worlds.seed(seed + np.arange(self.num_envs))
            self._seeded = True
        self._worlds.begin(np.ones(self.num_envs, bool))
        return self._observe(), {}

    def step(
        self, actions: Float[np.ndarray, "N A"]
    ) -> tuple[Observation, Float64[np.ndarray, " N"], Bool[np.ndarray, " N"], Bool[np.ndarray, " N"], dict[str, Any]]:
        """Imagine one step in every dream that goes on, and begin the others again.

        Args:
            actions: `[N,A]`, clipped to the action space; numbers ten times beyond it are refused.

        Returns:
            Observations, rewards, terminated, truncated, and the probabilities of the `continuation`.

        Raises:
            AimeError: if the actions have another shape, or one of a dream that goes on is not finite or far off.
        """
        ended = self._worlds.ended
        outcome = self._worlds.step(self._admit(actions, ended))
        info = {"continuation": np.where(ended, 0, outcome.continuation), "_continuation": ~ended}
        if self.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP:
            ended = self._worlds.ended
            rewards, ends = outcome.reward, (outcome.terminated, outcome.truncated)
            if ended.any():
                info |= {"final_obs": self._observe(), "_final_obs": ended}
        else:
            rewards, ends = (
                np.where(ended, 0, outcome.reward),
                (outcome.terminated & ~ended, outcome.truncated & ~ended),
            )
        if ended.any():
            self._worlds.begin(ended)
        return self._observe(), rewards.astype(np.float64), *ends, info

    def render(self) -> tuple[UInt8[np.ndarray, "H W 3"], ...] | None:
        """The frame of each dream, where `render_mode` is "rgb_array"."""
        return None if self.render_mode is None else tuple(self._worlds.frames())

    def snapshot(self) -> DreamSnapshot:
        """All dreams as they are now, to `restore` later, any number of times."""
        return self._worlds.snapshot()

    def restore(self, snapshot: DreamSnapshot) -> Observation:
        """Go back to a snapshot of an environment of the same run and settings, and observe it again.

        Raises:
            AimeError: if it is of another number of dreams, or lacks the frames that are observed here.
        """
        if len(snapshot.keys) != self.num_envs:
            raise AimeError(
                f"snapshot: holds {len(snapshot.keys)} dreams, expected {self.num_envs}: restore it where it was taken"
            )
        if snapshot.frames is None and self._worlds.visible:
            raise AimeError("snapshot: holds no frames, expected some: restore it where it was taken")
        self._worlds.restore(snapshot)
        self._seeded = True
        return self._observe()

    def _observe(self) -> Observation:
        return self._worlds.latents() if self._observations == "latents" else self._worlds.frames()

    def _admit(self, actions: Float[np.ndarray, "N A"], ended: Bool[np.ndarray, " N"]) -> Float[np.ndarray, "N A"]:
        """The actions in [-1, 1], with any where they count for nothing."""
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise AimeError(
                f"actions have shape {list(actions.shape)}, expected {list(self.action_space.shape or ())} (dreams, "
                "action width): give each dream one action"
            )
        actions = np.where(ended[:, None], 0, actions)
        expect_clipped_actions(actions, self._scale)
        return actions if self._scale.is_identity else self._scale.to_unit(actions)


class DreamEnv(gymnasium.Env):
    """One dream: `gymnasium.make("aime.agents:aime/Dream-v0", run=RUN)`. See `DreamVectorEnv`."""

    metadata = METADATA

    def __init__(self, run: str | Path, render_mode: str | None = None, **settings: Any) -> None:
        """Load a run.

        Args:
            run: a run directory, or "bundled:NAME", whose model has reward and continuation heads.
            render_mode: "rgb_array" lets `render` give the frame, beside latents too.
            settings: those of `DreamVectorEnv`, but for `autoreset_mode`.

        Raises:
            AimeError: as `DreamVectorEnv` does.
        """
        self._dreams = DreamVectorEnv(
            1, run, render_mode=render_mode, autoreset_mode=AutoresetMode.NEXT_STEP, **settings
        )
        self.render_mode = render_mode
        self.observation_space = self._dreams.single_observation_space
        self.action_space = self._dreams.single_action_space
        self._seeded = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode: the one that `seed` determines, or else the one that follows on the last."""
        super().reset(seed=seed)
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**62))
        self._seeded = True
        return self._dreams.reset(seed=seed)[0][0], {}

    def step(self, action: Float[np.ndarray, " A"]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Imagine one step; after an episode's end, begin the next.

        Args:
            action: `[A]`, clipped to the action space.

        Returns:
            Observation, reward, terminated, truncated, and the probability of the `continuation`.

        Raises:
            AimeError: if the action is not finite, in other units, or has another shape.
        """
        observations, rewards, terminated, truncated, info = self._dreams.step(np.asarray(action)[None])
        continuation = {"continuation": float(info["continuation"][0])}
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), continuation

    def render(self) -> UInt8[np.ndarray, "H W 3"] | None:
        """The frame, where `render_mode` is "rgb_array"."""
        frames = self._dreams.render()
        return None if frames is None else frames[0]

    def snapshot(self) -> DreamSnapshot:
        """The dream as it is now, to `restore` later, any number of times."""
        return self._dreams.snapshot()

    def restore(self, snapshot: DreamSnapshot) -> Observation:
        """Go back to a snapshot of an environment of the same run and settings, and observe it again.

        Raises:
            AimeError: if it is one of several dreams, or lacks the frames that are observed here.
        """
        self._seeded = True
        return self._dreams.restore(snapshot)[0]


def _observation_space(model: ModelConfig, observations: Observations) -> spaces.Box:
    if observations == "frames":
        return spaces.Box(0, 255, (model.image_size, model.image_size, 3), np.uint8)
    return spaces.Box(-np.inf, np.inf, (model.belief + model.latent,), np.float32)


def _scale(info: RunInfo) -> ActionScale:
    if info.action_scale is None:
        raise AimeError(
            f"{info.path}: does not know the units of its data's actions, expected a run on imported data: leave "
            "original_units out, and act in [-1, 1]"
        )
    return info.action_scale


def _check(observations: str, render_mode: str | None, **counts: int) -> None:
    if observations not in get_args(Observations):
        raise AimeError(f"observations is {observations!r}, expected 'latents' or 'frames'")
    if render_mode not in (None, "rgb_array"):
        raise AimeError(f"render_mode is {render_mode!r}, expected 'rgb_array' or None")
    for name, value in counts.items():
        if value < 1:
            raise AimeError(f"{name} is {value}, expected 1 or more")
