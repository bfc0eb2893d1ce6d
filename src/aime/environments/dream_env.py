"""A trained world model as a gymnasium environment, one dream or many at once: `aime/Dream-v0`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import gymnasium
import numpy as np
import torch
from einops import rearrange
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float, Float32, Float64, Int64, UInt8, UInt64

from aime.data.action_scale import ActionScale, expect_clipped_actions
from aime.dynamics.choices import Choice, likeliest
from aime.environments.dream_starts import DreamStates, observe_starts, open_starts
from aime.errors import AimeError, expect_choice
from aime.inference.loading import load_run
from aime.primitives.counter_noise import GOLDEN, mix64, uniforms
from aime.primitives.distributions import GaussianMixture, from_uniforms
from aime.primitives.hardware import Device
from aime.primitives.pixels import to_bytes
from aime.world_model.prediction import decode_in_chunks
from aime.world_model.saved import RunInfo, read_run

METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 25}
Observations = Literal["latents", "frames"]
Observation = Float32[np.ndarray, "*N features"] | UInt8[np.ndarray, "*N H W 3"]

GOES_ON = 0.5
"""A dream ends where the probability that its episode goes on is below this."""


class DreamSnapshot(NamedTuple):
    """All that N dreams are at a moment; nothing in it changes afterwards."""

    keys: UInt64[np.ndarray, " N"]
    elapsed: Int64[np.ndarray, " N"]
    ended: Bool[np.ndarray, " N"]
    states: DreamStates


class DreamVectorEnv(VectorEnv):
    """N dreams, stepped in one call: `gymnasium.make_vec("aime.environments:aime/Dream-v0", num_envs=N, run=RUN)`.

    An episode starts at a frame of a real clip and continues as the model imagines it. Observations are the model's
    belief and latent [h_{t-1}, z_t], or frames; the reward is the mean that the reward head predicts. An episode is a
    function of its seed and its actions; no global random generator is used.

    A dream that has ended starts again at the next step, which ignores its action and gives the reward 0: gymnasium's
    default, `AutoresetMode.NEXT_STEP`. In `AutoresetMode.SAME_STEP` it starts again at once, and the episode's last
    observation is in `info["final_obs"]`.

    With a seed s, dream i runs the episodes that `DreamEnv` runs from seed s + i, up to float32 rounding.
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
        """Load a run, and observe the clips that dreams begin in.

        Args:
            num_envs: N, 1 or more.
            run: a run directory, or "bundled:NAME", whose model has reward and continuation heads.
            data: a data set to begin in; by default the part of the run's own data that it trained on.
            observations: "latents" for [h_{t-1}, z_t] as float32, "frames" for `[H,W,3]` uint8.
            horizon: imagined steps after which an episode is truncated, 1 or more.
            context: real frames that the model has seen at least when a dream begins, 1 or more.
            starts: about how many frames of the data dreams begin at, 1 or more.
            deterministic: take the likeliest next latent in place of a sample.
            terminate: end an episode where the continuation head's probability is below 0.5.
            original_units: take actions in the units of the run's training data, such as radians, and not in [-1, 1].
            device: where the model runs.
            render_mode: "rgb_array" lets `render` give the frames, also where latents are observed.
            autoreset_mode: when a dream that has ended starts again, at the next step or in the same one.

        Raises:
            AimeError: if a setting is out of its range, `run` is no run, its model has no reward head or one that never
                saw a reward, or the data does not fit it or has no rewards.
        """
        counts = {"num_envs": num_envs, "horizon": horizon, "context": context, "starts": starts}
        _check(autoreset_mode, observations, render_mode, **counts)
        info = read_run(run)
        self._scale = _action_scale(info, original_units)
        dataset = open_starts(info, data, context)
        _, model = load_run(run, device)
        self._dynamics, self._control = model.dynamics, model.dynamics.expect_rewards()
        self._starts = observe_starts(model, dataset, context, starts)
        self._model = model if observations == "frames" or render_mode is not None else None
        """Draws the frames, which takes far longer than the step; None where nothing is drawn."""
        if self._model is None:
            self._starts = self._starts.without_frames()
        self._horizon, self._terminate, self._deterministic = horizon, terminate, deterministic
        self.num_envs, self.render_mode, self._observations = num_envs, render_mode, observations
        self.metadata = METADATA | {"autoreset_mode": autoreset_mode}
        width = info.model.belief + info.model.latent
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (width,), np.float32)
        if observations == "frames":
            self.single_observation_space = spaces.Box(0, 255, self._starts.frames.shape[1:], np.uint8)
        low, high = np.array(self._scale.low, np.float32), np.array(self._scale.high, np.float32)
        self.single_action_space = spaces.Box(low, high, dtype=np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._seeded = False
        first = self._starts.pick(torch.zeros(num_envs, dtype=torch.long, device=self._dynamics.device))
        elapsed = np.zeros(num_envs, np.int64)
        self._now = DreamSnapshot(elapsed.astype(np.uint64), elapsed, np.ones(num_envs, bool), first)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode in every dream: those that `seed` determines, or else those that follow on the last."""
        super().reset(seed=seed)
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**62))
        if seed is not None:
            self._now = self._now._replace(keys=mix64((seed + np.arange(self.num_envs)).astype(np.uint64)))
            self._seeded = True
        self._begin(np.ones(self.num_envs, bool))
        return self._observe(), {}

    def step(
        self, actions: Float[np.ndarray, "N A"]
    ) -> tuple[Observation, Float64[np.ndarray, " N"], Bool[np.ndarray, " N"], Bool[np.ndarray, " N"], dict[str, Any]]:
        """Imagine one step under actions clipped to the action space; dreams that have ended begin again.

        Returns:
            Observations, rewards, terminated, truncated, and the probabilities of the `continuation`.

        Raises:
            AimeError: if the actions have another shape, or one of a dream that goes on is not finite, or ten times
                beyond the action space.
        """
        again = self._now.ended
        reward, continuation, terminated, truncated = self._imagine(self._admit(actions))
        info = {"continuation": np.where(again, 0, continuation), "_continuation": ~again}
        reward, terminated, truncated = np.where(again, 0, reward), terminated & ~again, truncated & ~again
        if self.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP:
            again = self._now.ended
            if again.any():
                info |= {"final_obs": self._observe(), "_final_obs": again}
        if again.any():
            self._begin(again)
        return self._observe(), reward.astype(np.float64), terminated, truncated, info

    def render(self) -> tuple[UInt8[np.ndarray, "H W 3"], ...] | None:
        """The frame of each dream, where `render_mode` is "rgb_array": the real one where it has just begun."""
        return None if self.render_mode is None else tuple(self._now.states.frames.cpu().numpy().copy())

    def snapshot(self) -> DreamSnapshot:
        """All dreams as they are now, to `restore` later, any number of times."""
        return self._now

    def restore(self, snapshot: DreamSnapshot) -> Observation:
        """Go back to a snapshot of an environment of the same run and settings, and observe it again.

        Raises:
            AimeError: if it is of another number of dreams, or lacks the frames that are observed here.
        """
        count, states = len(snapshot.keys), snapshot.states
        if count != self.num_envs:
            raise AimeError(f"snapshot: holds {count} dreams, expected {self.num_envs}: restore it where it was taken")
        if self._model is not None and not states.frames.numel():
            raise AimeError("snapshot: holds no frames, expected some: restore it where it was taken")
        states = states if self._model is not None else states.without_frames()
        self._now, self._seeded = snapshot._replace(states=states), True
        return self._observe()

    @torch.inference_mode()
    def _begin(self, rows: Bool[np.ndarray, " N"]) -> None:
        """Start the next episode of some dreams, at real frames that follow from their keys."""
        keys, elapsed, ended, states = self._now
        keys = np.where(rows, mix64(keys + GOLDEN), keys)
        chosen = (keys[rows] % np.uint64(len(self._starts.frames))).astype(np.int64)
        places, index = (torch.from_numpy(each).to(self._dynamics.device) for each in (chosen, np.flatnonzero(rows)))
        states = states.replace(index, self._starts.pick(places))
        self._now = DreamSnapshot(keys, np.where(rows, 0, elapsed), ended & ~rows, states)

    @torch.inference_mode()
    def _imagine(self, actions: Float[np.ndarray, "N A"]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Advance all dreams, also those that have ended: reward, continuation, terminated and truncated, `[N]`."""
        keys, elapsed, _, states = self._now

        def sample(mixture: GaussianMixture, number: int) -> Choice:
            components, width = mixture.means.shape[-2:]
            noise = torch.from_numpy(uniforms(keys, elapsed, components + width)).to(mixture.means)
            return Choice(*from_uniforms(mixture, noise))

        action = torch.from_numpy(actions.astype(np.float32)).to(self._dynamics.device).clamp(-1, 1)
        carry, _, _ = self._dynamics.step(states.carry, action, likeliest if self._deterministic else sample)
        states = states._replace(carry=carry)
        if self._model is not None:
            last_map = self._model.attention.expect(carry.belief, carry.latent, states.last_map).map
            pixels = to_bytes(decode_in_chunks(self._model, carry.latent, last_map))
            states = DreamStates(carry, last_map, rearrange(pixels, "n c h w -> n h w c").contiguous())
        reward = self._control.reward(*carry.read).mean.cpu().numpy()
        continuation = self._control.continuation(*carry.read).sigmoid().cpu().numpy()
        terminated, truncated = (continuation < GOES_ON) & self._terminate, elapsed + 1 >= self._horizon
        self._now = DreamSnapshot(keys, elapsed + 1, terminated | truncated, states)
        return reward, continuation, terminated, truncated

    def _observe(self) -> Observation:
        _, _, _, (carry, _, frames) = self._now
        if self._observations == "frames":
            return frames.cpu().numpy().copy()
        return torch.cat([carry.belief, carry.latent], dim=-1).float().cpu().numpy()

    def _admit(self, actions: Float[np.ndarray, "N A"]) -> Float[np.ndarray, "N A"]:
        """The actions in [-1, 1]; any number is admitted for a dream that has ended."""
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise AimeError(
                f"actions have shape {list(actions.shape)}, expected {list(self.action_space.shape or ())} (dreams, "
                "action width): give each dream one action"
            )
        actions = np.where(self._now.ended[:, None], 0, actions)
        expect_clipped_actions(actions, self._scale)
        return actions if self._scale.is_identity else self._scale.to_unit(actions)


class DreamEnv(gymnasium.Env):
    """One dream: `gymnasium.make("aime.environments:aime/Dream-v0", run=RUN)`. See `DreamVectorEnv`."""

    metadata = METADATA

    def __init__(self, run: str | Path, render_mode: str | None = None, **settings: Any) -> None:
        """Load a run; the settings are those of `DreamVectorEnv`, except `autoreset_mode`.

        Raises:
            AimeError: as `DreamVectorEnv` does.
        """
        self._dreams = DreamVectorEnv(1, run, render_mode=render_mode, **settings)
        self.render_mode = render_mode
        self.observation_space = self._dreams.single_observation_space
        self.action_space = self._dreams.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode: the one that `seed` determines, or else the one that follows on the last."""
        super().reset(seed=seed)
        return self._dreams.reset(seed=seed)[0][0], {}

    def step(self, action: Float[np.ndarray, " A"]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Imagine one step under an action `[A]`; after an episode's end, begin the next. See `DreamVectorEnv.step`."""
        observations, rewards, terminated, truncated, info = self._dreams.step(np.asarray(action)[None])
        continuation = {"continuation": float(info["continuation"][0])}
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), continuation

    def render(self) -> UInt8[np.ndarray, "H W 3"] | None:
        """The frame, where `render_mode` is "rgb_array"."""
        frames = self._dreams.render()
        return None if frames is None else frames[0]

    def snapshot(self) -> DreamSnapshot:
        """See `DreamVectorEnv.snapshot`."""
        return self._dreams.snapshot()

    def restore(self, snapshot: DreamSnapshot) -> Observation:
        """See `DreamVectorEnv.restore`."""
        return self._dreams.restore(snapshot)[0]


def _check(autoreset_mode: AutoresetMode, observations: str, render_mode: str | None, **counts: int) -> None:
    if autoreset_mode is AutoresetMode.DISABLED:
        raise AimeError("autoreset_mode is DISABLED, expected NEXT_STEP or SAME_STEP: dreams start again by themselves")
    expect_choice("observations", observations, get_args(Observations))
    expect_choice("render_mode", render_mode, (None, "rgb_array"))
    for name, value in counts.items():
        if value < 1:
            raise AimeError(f"{name} is {value}, expected 1 or more")


def _action_scale(info: RunInfo, original_units: bool) -> ActionScale:
    if not original_units:
        return ActionScale.identity(info.model.action_width)
    if info.action_scale is None:
        raise AimeError(
            f"{info.path}: does not know the units of its data's actions, expected a run on imported data: leave "
            "original_units out, and act in [-1, 1]"
        )
    return info.action_scale
