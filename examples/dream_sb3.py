"""Train an agent of stable-baselines3 in the dream of a trained world model.

    pip install 'aime[gym]' 'stable-baselines3>=2.4,<3'
    python examples/dream_sb3.py runs/mine --steps 100000

The agent sees the model's belief and latent and never a frame; all its episodes are imagined, from real starts on. What
is printed is its mean return in the dream, before and after, over the same starts.
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, VecNormalize

from aime.environments.dream_env import DreamVectorEnv


class Dreams(VecEnv):
    """The vector form of `aime/Dream-v0` with the methods that stable-baselines3 calls."""

    def __init__(self, run: str, count: int, horizon: int) -> None:
        """Open `count` dreams of `horizon` steps."""
        made = gymnasium.make_vec(
            "aime.environments:aime/Dream-v0",
            count,
            vectorization_mode="vector_entry_point",
            run=run,
            horizon=horizon,
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
        assert isinstance(made, DreamVectorEnv)
        self.dreams = made
        super().__init__(count, made.single_observation_space, made.single_action_space)

    def reset(self) -> Any:
        """Begin all dreams, by the seed that was set before."""
        seed = self._seeds[0]
        self._reset_seeds()
        return self.dreams.reset(seed=seed)[0]

    def step_async(self, actions: np.ndarray) -> None:
        """Remember what to do."""
        self.actions = actions

    def step_wait(self) -> Any:
        """Imagine a step; where an episode ended, its last observation is in the info."""
        observations, rewards, terminated, truncated, info = self.dreams.step(self.actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(info.get("_final_obs", [])):
            infos[row]["terminal_observation"] = info["final_obs"][row]
            infos[row]["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
        return observations, rewards.astype(np.float32), terminated | truncated, infos

    def close(self) -> None:
        """Nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute, which all dreams share."""
        return [getattr(self.dreams, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Dreams are not changed from outside."""
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Dreams have no methods of their own."""
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """None is."""
        return [False] * self.num_envs


def mean_return(model: PPO, dreams: VecNormalize, horizon: int, seed: int) -> float:
    """Of one episode of each dream, under the likeliest actions."""
    dreams.training = False
    dreams.seed(seed)
    observations = dreams.reset()
    total, going_on = np.zeros(dreams.num_envs), np.ones(dreams.num_envs, bool)
    for _ in range(horizon):
        actions, _ = model.predict(observations, deterministic=True)
        observations, _, over, _ = dreams.step(actions)
        total += dreams.get_original_reward() * going_on
        going_on &= ~over
    dreams.training = True
    return float(total.mean())


def main() -> None:
    """Train, and print the return before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run directory whose model has reward and continuation heads")
    parser.add_argument("--steps", type=int, default=100_000, help="imagined, of all dreams together")
    parser.add_argument("--dreams", type=int, default=64, help="side by side")
    parser.add_argument("--horizon", type=int, default=50)
    options = parser.parse_args()
    dreams = VecNormalize(VecMonitor(Dreams(options.run, options.dreams, options.horizon)), gamma=0.97)
    model = PPO(
        "MlpPolicy",
        dreams,
        n_steps=options.horizon,
        batch_size=400,
        gamma=0.97,
        # noise that stays for a while: a body of some weight averages out what changes at every step
        use_sde=True,
        sde_sample_freq=8,
        policy_kwargs={"log_std_init": -2.0},
        seed=0,
        device="cpu",
        verbose=1,
    )
    before = mean_return(model, dreams, options.horizon, seed=1)
    model.learn(options.steps)
    after = mean_return(model, dreams, options.horizon, seed=1)
    print(f"mean return in the dream over {options.horizon} steps: {before:.2f} before, {after:.2f} after")


if __name__ == "__main__":
    main()
